"""Which linear layers of a trace could be the up, gate and down of one block."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator, Mapping

import torch
from torch import Tensor

from lazyneuron.blocks.block import LinearSite
from lazyneuron.blocks.find.trace import Trace
from lazyneuron.blocks.gaussian_top_k import fitted_gaussian_top_k
from lazyneuron.blocks.identify import agrees

_SAMPLE = 256
_HARDLY_ANY = 4
_RAGGED, _FEW = 0.25, 4.0  # unrelated values have 1, a smooth function of 32 values about 0.2, of 512 about 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """Layers that may form a block: ``down`` reads ``s(up)``, or ``s(gate) * up``, or ``s(gate) * relu(up)``."""

    up: LinearSite
    down: LinearSite
    gate: LinearSite | None = None
    rectifies_up: bool = False

    @property
    def first(self) -> LinearSite:
        """The layer that the activation reads."""
        return self.gate if self.gate is not None else self.up


def same(a: Tensor, b: Tensor) -> bool:
    """Do two tensors hold the same values, as when one is passed on, viewed or cast to a wider dtype?"""
    if a.shape != b.shape or not a.numel():
        return False
    a, b = a.double(), b.double()
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def depends(z: Tensor, h: Tensor) -> bool:
    """Could ``h`` be an element-wise function of ``z``? True when neighbours in ``z`` are neighbours in ``h``.

    A sieve: it lets every smooth function through and stops nearly all else, at the price of one small sort, and the
    more surely the more values fire. Where hardly any neuron fires there is nothing to tell, and it lets through.
    """
    z, h = z.flatten().float(), h.flatten().float()
    if z.numel() < 2 or not bool(torch.isfinite(h).all()):
        return False
    fires = (h != 0).nonzero().flatten()
    if len(fires) <= _HARDLY_ANY:
        return True
    stride = max(z.numel() // _SAMPLE, 1)
    chosen = torch.cat([torch.arange(0, z.numel(), stride, device=z.device), fires[:: max(len(fires) // _SAMPLE, 1)]])
    chosen = torch.unique(chosen)
    z, h = z[chosen], h[chosen]
    spread = (h - h.roll(h.numel() // 2 + 1)).abs().mean()
    steps = h[z.argsort()].diff().abs().mean()
    return bool(steps <= min(0.4, _RAGGED + _FEW / int((h != 0).sum())) * spread)


def candidates(
    trace: Trace, down: str, sites: Mapping[str, LinearSite], *, seen: Container[tuple[str, str]]
) -> Iterator[Candidate]:
    """The layers that ``down`` may read: plain, gated, gated with gate and up in one layer.

    Args:
        trace: of a module that holds them.
        down: name of the layer that reads.
        sites: the layers that are free to be part of a block.
        seen: pairs (up, down) that were looked at before.
    """
    h = trace.linears[down].input
    earlier = list(trace.linears)[: list(trace.linears).index(down)]
    before = [sites[name] for name in earlier if name in sites and (name, down) not in seen]
    outputs = {site.name: trace.linears[site.name].output for site in before}
    fitting = [site for site in before if outputs[site.name].shape == h.shape]
    for site in fitting:
        z = outputs[site.name]
        if depends(z, h) or _declared(trace, z, h):
            yield Candidate(up=site, down=sites[down])
    read = {site.name: trace.linears[site.name].input for site in fitting}
    begin = {name: repr(x.flatten()[:8].tolist()) for name, x in read.items()}  # for all pairs, `same` takes too long
    for gate in fitting:
        for up in fitting:
            if gate is not up and begin[gate.name] == begin[up.name] and same(read[gate.name], read[up.name]):
                for rectifies_up in _gated(trace, outputs[gate.name], outputs[up.name], h):
                    yield Candidate(up=up, down=sites[down], gate=gate, rectifies_up=rectifies_up)
    for site in before:
        width = h.shape[-1]
        if outputs[site.name].shape != (h.shape[0], 2 * width):
            continue
        first = dataclasses.replace(site, rows=(0, width))
        last = dataclasses.replace(site, rows=(width, 2 * width))
        for gate, up in ((first, last), (last, first)):
            for rectifies_up in _gated(trace, gate.part_of(outputs[site.name]), up.part_of(outputs[site.name]), h):
                yield Candidate(up=up, down=sites[down], gate=gate, rectifies_up=rectifies_up)


def _gated(trace: Trace, z: Tensor, u: Tensor, h: Tensor) -> Iterator[bool]:
    """Could ``h`` be a function of ``z`` times ``u`` (False), or times ``relu(u)`` (True)?"""
    large = (u.abs() >= u.abs().float().median()) & (u != 0)
    value = h.float() / u.float()
    if depends(z[large], value[large]) or _declared(trace, z, h, u) or any(fitted_gaussian_top_k(z, value)):
        yield False
    positive, negative = large & (u > 0), u < 0
    if bool(negative.any()) and not bool(h[negative].any()) and depends(z[positive], value[positive]):
        yield True


def _declared(trace: Trace, z: Tensor, h: Tensor, u: Tensor | None = None) -> bool:
    """Did a module that declares an activation of whole tokens, where neighbours say nothing, turn ``z`` into ``h``?"""
    for call, module in trace.declaring:
        if call.output.shape == h.shape and same(call.input, z) and not module.activation_spec().elementwise:
            return agrees(call.output if u is None else call.output * u, h)
    return False
