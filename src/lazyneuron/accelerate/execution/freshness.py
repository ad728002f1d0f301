"""Whether the weights of a block are still those that were packed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import optimizer

from lazyneuron.blocks.block import LinearSite
from lazyneuron.ops.fingerprint.fingerprint import Fingerprint, can_be_read

TOKENS_A_PART = 8  # a longer input pays for more of the comparison


class Watched(Protocol):
    """What has linear layers: a block, or a head."""

    @property
    def linears(self) -> tuple[LinearSite, ...]:
        """Those whose weights are watched."""


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


def unwatchable(block: Watched, *, devices: Sequence[str] = ("cpu",)) -> str | None:
    """Why changes of a block's weights could not be noticed, as a sentence, or None when they could.

    Args:
        block: the block.
        devices: types of those that its weights may be on.
    """
    for site in block.linears:
        for name in ("weight", "bias"):
            reason = _unwatchable(site, name, devices)
            if reason is not None:
                return reason
    return None


def _unwatchable(site: LinearSite, name: str, devices: Sequence[str]) -> str | None:
    parameter = site.module._parameters.get(name)
    if parameter is None:
        is_there = name == "weight" or getattr(site.module, name, None) is not None
        return f"The {name} of {site.name} is no parameter of it; make it one." if is_there else None
    kind = type(parameter)
    plain = kind is Tensor or kind.__torch_function__ is nn.Parameter.__torch_function__
    if not plain or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ or parameter.layout is not torch.strided:
        return f"The {name} of {site.name} is a {kind.__name__} of its own layout; only plain tensors are supported."
    if parameter.device.type not in devices:
        return f"There is no kernel for the device {parameter.device.type!r}."
    if parameter.is_inference():
        return "Its weights are inference tensors, whose changes cannot be noticed; load them outside inference_mode."
    if not can_be_read(parameter):
        return "Its weights are spread in memory, so changes of them cannot be noticed; make them contiguous."
    return None


class Unwatched:
    """Weights whose changes could not be noticed: all that is looked at is whether they still are such."""

    calls_to_see_all = 1

    def __init__(self, block: Watched) -> None:
        self._block = block

    def holds_at_a_glance(self, tokens: int) -> bool:
        """Is it still so?"""
        return self.holds()

    def holds(self) -> bool:
        """Is it still so?"""
        return unwatchable(self._block) is not None


class Freshness:
    """The weights of a block as they are when this is made: make it *before* reading them.

    Noticed at the next call: another parameter object, a raised version counter, another address, size or stride, and
    what a step of a ``torch.optim`` optimiser wrote. Anything else that writes (through ``.data``, NumPy or a pointer)
    is noticed by content: in the part of the bytes that a call compares, hence within :attr:`calls_to_see_all` calls;
    or at once by :meth:`holds`.

    Args:
        block: the block; none of its weights is :func:`unwatchable`.
    """

    def __init__(self, block: Watched) -> None:
        self._steps = steps_made()
        modules = dict.fromkeys(site.module for site in block.linears)
        entries = [(module._parameters, name) for module in modules for name in ("weight", "bias")]
        self._watched = tuple(
            (home, name, p, *_marks(p)) for home, name in entries if (p := home.get(name)) is not None
        )
        self._absent = tuple(entry for entry in entries if entry[0].get(entry[1]) is None)
        weights = [entry[2] for entry in self._watched]
        # an exchange of axes can keep address and size of a square one only
        self._square = tuple((p, p.stride()) for p in weights if p.ndim == 2 and p.shape[0] == p.shape[1])
        self._fingerprint = Fingerprint(weights)

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
        try:
            for home, name, parameter, version, pointer, size in self._watched:
                if (
                    home[name] is not parameter
                    or parameter._version != version
                    or parameter.data_ptr() != pointer
                    or parameter.numel() != size
                ):
                    return False
        except (KeyError, RuntimeError):  # it is gone, or was made a tensor without an address or version
            return False
        for home, name in self._absent:
            if home.get(name) is not None:
                return False
        return all(parameter.stride() == strides for parameter, strides in self._square) if self._square else True


def _marks(parameter: Tensor) -> tuple[int, int, int]:
    return parameter._version, parameter.data_ptr(), parameter.numel()
