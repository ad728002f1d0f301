"""What looks like an MLP block and cannot be worked with, with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from lazyneuron.blocks.search import Search


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejected:
    """A candidate that was not accepted.

    Attributes:
        name: dotted name of the module that holds it.
        reason: one sentence.
    """

    name: str
    reason: str


def batched_experts(model: nn.Module) -> Iterator[Rejected]:
    """Modules that hold the weights of several experts in one tensor each."""
    for name, module in model.named_modules():
        stacks = {n: p for n, p in module._parameters.items() if p is not None and p.ndim == 3}
        for down_name, down in stacks.items():
            for up_name, up in stacks.items():
                if up is not down and len(up) == len(down) > 1 and _reads(down, up):
                    reason = (
                        f"It holds {len(up)} experts in batched weights ({up_name}, {down_name}), not in layers of "
                        "their own; unpack them into linear layers first."
                    )
                    yield Rejected(name=name, reason=reason)
                    break
            else:
                continue
            break


def _reads(down: Tensor, up: Tensor) -> bool:
    """Could ``down`` (E, a, b) follow ``up`` (E, c, d), in whichever layout, maybe with gate and up merged?"""
    return any(
        up.shape[2 - k] == down.shape[1 + k] and up.shape[1 + k] in (down.shape[2 - k], 2 * down.shape[2 - k])
        for k in (0, 1)
    )


def packed_linears(model: nn.Module) -> Iterator[Rejected]:
    """Linear layers whose weight is packed out of sight."""
    for name, module in model.named_modules():
        widths = (getattr(module, "in_features", None), getattr(module, "out_features", None))
        if all(isinstance(n, int) for n in widths) and not hasattr(module, "weight") and not module._modules:
            reason = f"It is a {type(module).__name__}, a linear layer without a weight to read; load it unquantised."
            yield Rejected(name=name, reason=reason)


def never_ran(search: Search) -> Iterator[Rejected]:
    """Pairs of layers that widen and narrow again like a block, but of which no trace could be made."""
    for up, down in _widening(search):
        meta = [n for n in (up, down) if search.sites[n].weight.is_meta]
        if meta:
            yield Rejected(name=meta[0], reason="Its weight is on the meta device; load it before looking for blocks.")
        elif up not in search.ran and down not in search.ran:
            reason = f"It and {down} could not be run alone; pass an example input, so that the whole model runs."
            yield Rejected(name=up, reason=reason)


def _widening(search: Search) -> Iterator[tuple[str, str]]:
    """Neighbouring layers (d -> more, more -> d), each layer once."""
    taken: set[str] = set()
    shapes, names = search.shapes, list(search.shapes)
    for k, up in enumerate(names):
        out, width = shapes[up]
        if out <= width or up in taken:
            continue
        for down in names[k + 1 : k + 4]:
            if down not in taken and shapes[down][0] == width and shapes[down][1] in (out, out // 2):
                taken |= {up, down}
                yield up, down
                break
