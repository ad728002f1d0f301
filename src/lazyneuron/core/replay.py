"""The register of verbs: how the change that a saved receipt records is made again on a fresh model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import nn

from lazyneuron.core.errors import MALFORMED, CheckpointError, ImplUnavailable, LazyNeuronError, said
from lazyneuron.core.receipt import Receipt

Again = Callable[[nn.Module, Receipt], Receipt]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """How one verb's changes come back.

    Attributes:
        again: makes the change anew; None where the saved weights hold all of it.
        machine: the change is made for one machine, out of the loaded weights; it can be left out.
    """

    again: Again | None
    machine: bool = False

    def make(self, model: nn.Module, receipt: Receipt) -> Receipt:
        """The change made anew.

        Raises:
            CheckpointError: it does not fit the model.
            ImplUnavailable: it names an implementation that cannot run here.
        """
        assert self.again is not None
        try:
            return self.again(model, receipt)
        except (CheckpointError, ImplUnavailable):
            raise
        except MALFORMED as error:
            why = str(error) if isinstance(error, LazyNeuronError) else f"{type(error).__name__}, {said(error)}."
            raise CheckpointError(f"The saved {receipt.verb} does not fit this model: {why}") from error


REPLAYS: dict[str, Replay] = {}


def replays(verb: str, *, machine: bool = False) -> Callable[[Again], Again]:
    """Register the decorated function as what makes a verb's saved change again.

    Args:
        verb: as it stands in receipts.
        machine: see :class:`Replay`.

    Example:
        >>> @replays("rename_")
        ... def rename_again_(model, receipt):
        ...     return receipt
        >>> REPLAYS.pop("rename_").machine
        False
    """

    def keep(again: Again) -> Again:
        REPLAYS[verb] = Replay(again=again, machine=machine)
        return again

    return keep


def replay_of(receipt: Receipt) -> Replay:
    """How the change of a saved receipt comes back.

    Raises:
        CheckpointError: nothing registered its verb.
    """
    if receipt.verb not in REPLAYS:
        raise CheckpointError(
            f"The saved change {receipt.verb!r} is not known to this version; import what registers it, or update "
            "lazyneuron."
        )
    return REPLAYS[receipt.verb]


def lives_in_weights(verb: str) -> None:
    """Register a verb whose change is all in the saved weights, so that loading does nothing for it."""
    REPLAYS[verb] = Replay(again=None)
