"""What a block's own code keeps for its backward, and whether the packed one computes the same in training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.train.packing.overrides import GatedRun, PackedActivation
from lazyneuron.train.packing.plan import stands_whole

_TOKENS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What a short run of one block in training mode showed.

    Attributes:
        dense_bytes: what its own code keeps of the hidden layer for one token.
        difference: one sentence why it cannot be replaced, or None.
    """

    dense_bytes: int
    difference: str | None = None


def tried(model: nn.Module, blocks: Sequence[MLPBlock]) -> list[Trial]:
    """Run blocks on a few random tokens; the model is as it was afterwards, random state included."""
    with borrowed(model, bare=True), torch.enable_grad():
        found = []
        for block in blocks:
            for module in _modules(model, block):
                module.training = True
            found.append(_try(model, block))
        return found


def _modules(model: nn.Module, block: MLPBlock) -> list[nn.Module]:
    names = [*([] if block.container is None else [block.container]), *block.dropouts]
    return [m for name in names for m in model.get_submodule(name).modules()]


def _try(model: nn.Module, block: MLPBlock) -> Trial:
    weight = block.first.weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, _TOKENS, block.d_in, generator=generator).to(weight.device, weight.dtype).requires_grad_()
    parts = tuple(model.get_submodule(name) for name in block.dropouts)
    try:
        dense = _kept_bytes(model, block, x, lambda: _own(model, block, x, parts))
        same = not stands_whole(block) or _same(model, block, x, parts)
        slopes = _same_slopes(block, x)
    except Exception as error:
        return Trial(dense_bytes=0, difference=f"Its code cannot be run alone ({type(error).__name__}).")
    text = "Its own code does more in training than gate, activation, up, dropout and down, which would be left out."
    if same and not slopes:
        text = (
            f"The gradient of its activation is not the slope of {block.activation.kind}, so it cannot be recomputed."
        )
    return Trial(dense_bytes=dense, difference=None if same and slopes else text)


def _own(model: nn.Module, block: MLPBlock, x: Tensor, dropouts: tuple[nn.Module, ...]) -> Tensor:
    """The block as the model runs it."""
    if block.container is not None:
        y: Tensor = model.get_submodule(block.container)(x)
        return y
    assert block.site is not None
    h = block.site.function(block.up.module(x))
    for dropout in dropouts:
        h = dropout(h)
    y = block.down.module(h)
    return y


def _same_slopes(block: MLPBlock, x: Tensor) -> bool:
    """Is the gradient that the model's own activation has the one that is recomputed from what fires?"""
    held: Any = block.activation if block.site is None else block.site.function
    packed = PackedActivation(held, block.activation)
    z = torch.linspace(-4, 4, 2 * block.d_hidden).reshape(2, -1).to(x.device, x.dtype).requires_grad_()
    gradients = [torch.autograd.grad(run(z).double().sum(), z)[0] for run in (held, packed)]
    return _close(*gradients)


def _same(model: nn.Module, block: MLPBlock, x: Tensor, dropouts: tuple[nn.Module, ...]) -> bool:
    held = block.activation if block.site is None else block.site.function
    torch.manual_seed(0)  # the state is put back by what borrows the model
    own = _own(model, block, x, dropouts)
    torch.manual_seed(0)
    packed = GatedRun(block, held, dropouts)(x)
    return packed is not None and _close(packed.detach(), own.detach())


def _close(a: Tensor, b: Tensor) -> bool:
    limit = 1e-4 if a.dtype in (torch.float32, torch.float64) else 5e-2
    return bool(((a.double() - b.double()).abs().amax() <= limit * (b.double().abs().amax() + 1e-30)).item())


def _kept_bytes(model: nn.Module, block: MLPBlock, x: Tensor, run: Callable[[], Tensor]) -> int:
    """Bytes of what autograd keeps that is as wide as the hidden layer, for one token; memory that is shared once."""
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), x)}
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        place = t.untyped_storage().data_ptr()
        if place not in known and t.dim() and t.shape[-1] == block.d_hidden:
            kept[place] = max(kept.get(place, 0), t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = run()
    del y
    return sum(kept.values()) // _TOKENS
