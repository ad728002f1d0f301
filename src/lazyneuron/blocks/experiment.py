"""Put chosen values between the layers of a candidate and see what arrives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.blocks.dataflow import Candidate
from lazyneuron.blocks.trace import Trace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """First rows of what was put in and of what arrived.

    Attributes:
        z: in place of the switch's output.
        u: in place of the output of a gated candidate's ``up``, between 0.5 and 2 in size; None for a plain one.
        h: what ``down`` read.
        value: ``h / u``, or ``h``.
        trace: of the run.
    """

    z: Tensor
    u: Tensor | None
    h: Tensor
    value: Tensor
    trace: Trace


def experiment(trace: Trace, candidate: Candidate, *, changed: bool = False) -> Experiment | None:
    """Run the traced module once more with chosen values in place of the outputs of the candidate's first layers.

    Args:
        trace: of a module that holds the candidate.
        candidate: the layers.
        changed: whether to add 1 to z at every second neuron and at the whole first token, and to take other factors.

    Returns:
        The result, or None when the run failed or ``down`` read something of another shape.
    """
    up, gate = candidate.up, candidate.gate
    shift, seed = (1.0, 14) if changed else (0.0, 13)
    replace: dict[str, Callable[[Tensor], Tensor]] = {}

    def merged(output: Tensor) -> Tensor:
        assert gate is not None
        output = output.clone()
        gate.part_of(output).copy_(_pre_activations(gate.part_of(output), shift))
        up.part_of(output).copy_(_factors(up.part_of(output), seed))
        return output

    if gate is None:
        replace[up.name] = lambda output: _pre_activations(output, shift)
    elif gate.name == up.name:
        replace[up.name] = merged
    else:
        replace[gate.name] = lambda output: _pre_activations(output, shift)
        replace[up.name] = lambda output: _factors(output, seed)
    try:
        probed = trace.again(replace)
        z = candidate.switch.part_of(probed.linears[candidate.switch.name].output)
        u = None if gate is None else up.part_of(probed.linears[up.name].output)
        h = probed.linears[candidate.down.name].input
    except Exception:
        return None
    if h.shape != z.shape or (u is not None and u.shape != h.shape):
        return None
    return Experiment(z=z, u=u, h=h, value=h if u is None else h / u, trace=probed)


def _uniform(like: Tensor, seed: int) -> Tensor:
    """Between -1 and 1, the same for the same shape."""
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed), device="cpu") * 2 - 1


def _pre_activations(like: Tensor, shift: float) -> Tensor:
    z = _uniform(like, 11) * torch.where(_uniform(like, 12) < 0, 10.0, 3.0)
    z[..., ::2] += shift
    z.view(-1, z.shape[-1])[:1, 1::2] += shift
    return z.to(like.device, like.dtype)


def _factors(like: Tensor, seed: int) -> Tensor:
    uniform = _uniform(like, seed)
    return (uniform * 1.5 + torch.where(uniform < 0, -0.5, 0.5)).to(like.device, like.dtype)
