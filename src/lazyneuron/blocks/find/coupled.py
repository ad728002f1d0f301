"""Layers between which it depends on the whole token what is zero, as after a top-k: no block, but to be named."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.blocks.find.trace import Replace, Trace

COUPLED = (
    "Which neurons of {} are zero before {} depends on the whole token, as in a top-k or after a norm, so none can be "
    "judged by itself; use an element-wise activation, or hold it as a module that declares what it is."
)
_FEW = 0.05


def couples(trace: Trace, up: str, down: str) -> bool:
    """Is what ``down`` reads zero at some neurons, and do other neurons of the same token in ``up`` decide where?

    Asked by moving half the neurons of the first token in place of what ``up`` computed, and then, to tell it from
    attention, all that any layer computed for the other tokens.
    """
    z, h = trace.linears[up].output, trace.linears[down].input
    if z.shape != h.shape or len(h) < 2 or not _some_zeros(h):
        return False
    chosen = (torch.randn(z.shape, generator=torch.Generator().manual_seed(17), device="cpu") * 3).to(z.device, z.dtype)
    moved = chosen.clone()
    moved[0, ::2] += 2
    others: Replace = {name: _elsewhere(2.0) for name in trace.linears}
    before = _arriving(trace, {up: _instead(chosen)}, down)
    after = _arriving(trace, {up: _instead(moved)}, down)
    apart = _arriving(trace, {**others, up: _instead(chosen)}, down)
    if before is None or after is None or apart is None or before.shape != h.shape or not _some_zeros(before):
        return False
    whole = not torch.equal(before[0, 1::2], after[0, 1::2])
    return whole and torch.equal(before[1:], after[1:]) and torch.equal(before[0], apart[0])


def _some_zeros(h: Tensor) -> bool:
    share = float((h == 0).double().mean())
    return _FEW <= share < 1 and bool(h.isfinite().all())


def _arriving(trace: Trace, replace: Replace, down: str) -> Tensor | None:
    try:
        return trace.again(replace).linears[down].input
    except Exception:
        return None


def _instead(values: Tensor) -> Callable[[Tensor], Tensor]:
    """These values for the first tokens."""

    def replace(output: Tensor) -> Tensor:
        output = output.clone(memory_format=torch.contiguous_format)
        rows = output.view(-1, output.shape[-1])
        rows[: len(values)] = values[: len(rows)]
        return output

    return replace


def _elsewhere(step: float) -> Callable[[Tensor], Tensor]:
    """A step added to all tokens but the first."""

    def replace(output: Tensor) -> Tensor:
        output = output.clone(memory_format=torch.contiguous_format)
        output.view(-1, output.shape[-1])[1:] += step
        return output

    return replace
