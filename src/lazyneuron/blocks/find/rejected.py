"""What looks like an MLP block and cannot be worked with, with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejected:
    """A candidate that was not accepted.

    Attributes:
        name: dotted name of the module that holds it.
        reason: one sentence.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name or 'The model'}: {self.reason}"


NOT_FINITE = "Its weight or bias holds NaN or infinity; load a sound one."


def is_finite(site: LinearSite) -> bool:
    """Are all weights and biases of a layer finite numbers?"""
    return all(bool(t.isfinite().all()) for t in (site.weight, site.bias) if t is not None)


def batched_experts(model: nn.Module) -> Iterator[Rejected]:
    """Modules that hold the weights of several experts in one tensor each, themselves or in two of their parts."""
    for name, module in model.named_modules():
        parts = {"": module, **{f"{child}.": part for child, part in module._modules.items() if part is not None}}
        stacks = {
            (part_name, n): p
            for part_name, part in parts.items()
            for n, p in part._parameters.items()
            if p is not None and p.ndim == 3 and min(p.shape) > 1
        }
        pairs = [
            ("".join(up), "".join(down))
            for down in stacks
            for up in stacks
            if down != up and (down[0] != up[0] or down[0] == "") and _reads(stacks[down], stacks[up])
        ]
        if pairs:
            up, down = pairs[0]
            reason = (
                f"It holds what looks like {len(stacks[next(iter(stacks))])} experts in batched weights ({up}, {down}), "  # noqa: E501
                "not in layers of their own; unpack them into linear layers first."
            )
            yield Rejected(name=name, reason=reason)


def _reads(down: Tensor, up: Tensor) -> bool:
    """Could ``down`` (E, a, b) follow ``up`` (E, c, d), in whichever layout, maybe with gate and up merged?"""
    return len(up) == len(down) and any(
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


def common_name(names: list[str]) -> str:
    """The dotted name of the smallest module that holds all of these."""
    shared = []
    for column in zip(*(n.split(".")[:-1] for n in names), strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)
