"""Stopping a training whose loss is no longer finite, before the weights are touched, and saying where it began."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import blocks_of
from lazyneuron.core.errors import DivergedError


@dataclasses.dataclass
class _Sums:
    """Sums of one block's input and output in the latest forward; finite exactly if (in effect) every entry is."""

    block: str
    entering: Tensor | None = None
    leaving: Tensor | None = None


class LossGuard:
    """Refuses a loss that is not finite and names the block where the numbers broke.

    Call :meth:`check` between forward and the optimiser's step: then the weights are still those of the last good step.
    Make it before the model is wrapped (DDP, FSDP2, ``torch.compile``).

    Args:
        model: the model.
        blocks: the blocks to watch; None finds all.
        kept: says where the last good checkpoint is, for the message; None for no word about it.

    Raises:
        NoBlocksError: the model has no MLP block.

    Cost: a sum over the input and one over the output of every block in each forward, and one number that the host
        waits for in each check.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        blocks: Sequence[MLPBlock] | None = None,
        kept: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._kept = kept
        found = blocks_of(model, blocks)
        self._sums = {block.name: _Sums(block.name) for block in found}
        self._order: list[str] = []
        self._handles = [model.register_forward_pre_hook(self._begin)]
        for block in found:
            self._handles.append(block.first.module.register_forward_pre_hook(self._entering(block.name)))
            self._handles.append(block.down.module.register_forward_hook(self._leaving(block.name)))

    def check(self, loss: Tensor | float, *, step: int) -> None:
        """Let a finite loss pass.

        Args:
            loss: the step's loss.
            step: number of the step that is being made.

        Raises:
            DivergedError: the loss is infinite or not a number; the sentence names the first block whose output is.
        """
        value = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
        if bool(value.isfinite().all()):
            return
        kept = self._kept()
        where = "there is no checkpoint yet" if kept is None else f"the last good checkpoint is {kept}"
        raise DivergedError(
            f"The loss of step {step} is {float(value.float().mean())}: {self.origin()}; the weights are still those "
            f"before this step and {where}. Lower the learning rate, clip gradients, or give JSReLU a cap."
        )

    def origin(self) -> str:
        """Where the latest forward's numbers first were not finite, as a part of a sentence."""
        for name in self._order:
            sums = self._sums[name]
            if sums.entering is not None and not bool(sums.entering.isfinite()):
                return f"what enters the block {name!r} is not finite, and no block before it made it so"
            if sums.leaving is not None and not bool(sums.leaving.isfinite()):
                return f"the first block whose output is not finite is {name!r}"
        return "the outputs of all blocks are finite, so it comes from what follows them, or from the targets"

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, *_: Any) -> None:
        self._order = []

    def _entering(self, name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                if name not in self._order:
                    self._order.append(name)
                self._sums[name].entering = _sum(inputs[0])
                self._sums[name].leaving = None

        return hook

    def _leaving(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self._sums[name].leaving = _sum(output)

        hook.only_output = True  # type: ignore[attr-defined]
        return hook


def _sum(x: Tensor) -> Tensor:
    x = x.detach()
    # sums of half precision overflow where no entry does
    return x.sum(dtype=torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else None)
