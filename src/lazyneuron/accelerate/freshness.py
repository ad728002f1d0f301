"""Whether the weights of a block are still those that were packed."""

from __future__ import annotations

import functools
from typing import Any

from torch.optim import optimizer

from lazyneuron.accelerate.fingerprint import Fingerprint
from lazyneuron.blocks.block import MLPBlock

TOKENS_A_PART = 8  # a longer input pays for more of the comparison


class _Steps:
    """How many steps the optimisers of this process have made: fused ones raise no version counter."""

    count = 0


def steps_made() -> int:
    """The number of optimiser steps since it was first asked for."""
    _count_steps()
    return _Steps.count


@functools.cache
def _count_steps() -> None:
    def count(*_: Any) -> None:
        _Steps.count += 1

    optimizer.register_optimizer_step_post_hook(count)


class Freshness:
    """The weights of a block as they are when this is made: make it *before* reading them.

    Noticed at the next call: another parameter object, a raised version counter, another address, and what a step of a
    ``torch.optim`` optimiser wrote. Anything else that writes (through ``.data``, NumPy or a pointer) is noticed by
    content: in the part of the bytes that a call compares, hence within :attr:`calls_to_see_all` calls; or at once by
    :meth:`holds`.

    Args:
        block: the block.
    """

    def __init__(self, block: MLPBlock) -> None:
        self._steps = steps_made()
        modules = dict.fromkeys(site.module for site in block.linears)
        self._watched = tuple(
            (module._parameters, name, p, p._version, p.data_ptr())
            for module in modules
            for name in ("weight", "bias")
            if (p := module._parameters.get(name)) is not None
        )
        self._fingerprint = Fingerprint([entry[2] for entry in self._watched])

    @property
    def calls_to_see_all(self) -> int:
        """Calls of one token after which every byte has been compared."""
        return self._fingerprint.turns

    def holds_at_a_glance(self, tokens: int) -> bool:
        """Does nothing tell of a change, for a few microseconds of looking?"""
        if _Steps.count != self._steps:
            return self.holds()
        return self._same_objects() and self._fingerprint.holds_in_part(1 + tokens // TOKENS_A_PART)

    def holds(self) -> bool:
        """Is every byte what it was? One pass over the weights."""
        steps = _Steps.count
        if not (self._same_objects() and self._fingerprint.holds()):
            return False
        self._steps = steps
        return True

    def _same_objects(self) -> bool:
        for parameters, name, parameter, version, pointer in self._watched:
            if (
                parameters.get(name) is not parameter
                or parameter._version != version
                or parameter.data_ptr() != pointer
            ):
                return False
        return True
