"""The search for blocks: which modules are traced, and what is made of a trace."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.find.confirm import UNKNOWN, Confirmed, confirm
from lazyneuron.blocks.find.coupled import COUPLED, couples
from lazyneuron.blocks.find.dataflow import Candidate, candidates, same
from lazyneuron.blocks.find.norm import norm_in
from lazyneuron.blocks.find.rejected import NOT_FINITE, Rejected, common_name, is_finite
from lazyneuron.blocks.find.trace import Trace, trace_locally
from lazyneuron.blocks.splice.refusal import refusal_of_linear

META = torch.device("meta")
_MOST_LINEARS = 48  # a module with more is a stack of layers: its parts are traced instead

Pair = tuple[str, str]


class Search:
    """Blocks found so far, and what is left to trace."""

    def __init__(self, model: nn.Module, sites: dict[str, LinearSite]) -> None:
        self.model = model
        weights = {name: site.weight for name, site in sites.items()}
        self.shapes = {name: (int(weight.shape[0]), int(weight.shape[1])) for name, weight in weights.items()}
        self.sites = sites
        self.runnable = {name: site for name, site in sites.items() if META not in _devices(site)}
        self.rejected: list[Rejected] = []
        self.ran: set[str] = set()
        self.traces: dict[tuple[str, int], Trace | None] = {}
        self._found: list[tuple[MLPBlock, Trace]] = []
        self.used: set[str] = set()
        self._seen: set[Pair] = set()

    def trace_all(self) -> None:
        """Trace every module that may hold a block, innermost first."""
        for name, module in sorted(self.model.named_modules(), key=lambda item: -_depth(item[0])):
            if type(module).forward is not nn.Module.forward and name not in self.sites:
                self._trace_module(name, module)

    def open_pairs(self, prefix: str) -> list[Pair]:
        """Pairs (up, down) below a module that fit in shape and were not tried yet."""
        names = [n for n in self.runnable if n.startswith(prefix) and n not in self.used]
        if not 2 <= len(names) <= _MOST_LINEARS:
            return []
        return [
            (a, b)
            for a in names
            for b in names
            if a != b and self.shapes[a][0] in (self.shapes[b][1], 2 * self.shapes[b][1]) and (a, b) not in self._seen
        ]

    def _trace_module(self, name: str, module: nn.Module) -> None:
        pairs = self.open_pairs(_prefix(name))
        if not pairs:
            return
        inside = {n: s for n, s in self.runnable.items() if n.startswith(_prefix(name))}
        for width in dict.fromkeys(self.shapes[a][1] for a, _ in pairs):
            trace = self.traces[name, width] = trace_locally(name, module, inside, width=width)
            if trace is not None:
                self.examine(trace)

    def examine(self, trace: Trace) -> None:
        """Accept the blocks that a trace shows."""
        self.ran |= set(trace.linears)
        for down in trace.linears:
            if down not in self.used:
                self._find_before(down, trace)
        self._leave_out_broken(trace)
        self._seen |= {(a, b) for a in trace.linears for b in trace.linears}
        for k, (block, shown) in enumerate(self._found):
            if block.norm is None:
                self._found[k] = (dataclasses.replace(block, norm=norm_in(trace, block, self.model)), shown)

    def _leave_out_broken(self, trace: Trace) -> None:
        """Reject layers that make NaN or infinity of finite inputs because their weights hold some."""
        for name, call in trace.linears.items():
            fresh = name in self.runnable and name not in self.used
            if fresh and bool(call.input.isfinite().all()) and not bool(call.output.isfinite().all()):
                if is_finite(self.sites[name]):
                    continue
                self.rejected.append(Rejected(name=name, reason=NOT_FINITE))
                self.used.add(name)

    def _find_before(self, down: str, trace: Trace) -> None:
        free = {n: s for n, s in self.runnable.items() if n not in self.used}
        unknown: list[str] = []
        for candidate in candidates(trace, down, free, seen=self._seen):
            confirmed = confirm(trace, candidate, self.model)
            if confirmed is None:
                continue
            if confirmed.activation is not None:
                self._found.append((self._block(candidate, confirmed, trace), trace))
                self.used |= set(_names(candidate))
                return
            unknown = unknown or _names(candidate)  # with gate and up exchanged a block looks like an unknown one
        if unknown:
            self.rejected.append(Rejected(name=common_name(unknown), reason=UNKNOWN))
            self.used |= set(unknown)
            return
        for name in trace.linears:
            if name in free and name != down and (name, down) not in self._seen and couples(trace, name, down):
                self.rejected.append(Rejected(name=common_name([name, down]), reason=COUPLED.format(name, down)))
                self.used |= {name, down}
                return

    def _block(self, candidate: Candidate, confirmed: Confirmed, trace: Trace) -> MLPBlock:
        assert confirmed.activation is not None
        common = common_name(_names(candidate))
        return MLPBlock(
            name=common,
            up=candidate.up,
            gate=candidate.gate,
            down=candidate.down,
            activation=confirmed.activation,
            site=confirmed.site,
            container=_container(candidate, common, trace),
            rectifies_up=candidate.rectifies_up,
            rectified_by_model=candidate.rectifies_up,
            dropouts=confirmed.dropouts + ((common,) if confirmed.dropped else ()),
        )

    def named(self) -> list[tuple[MLPBlock, Trace]]:
        """The blocks with unique names, and with ``shared`` filled in."""
        times = collections.Counter(block.name for block, _ in self._found)
        holders = collections.Counter(id(b.site.function) for b, _ in self._found if b.site and _is_module(b))
        result = []
        for block, trace in self._found:
            site = block.site
            if site is not None and _is_module(block) and holders[id(site.function)] > 1:
                site = dataclasses.replace(site, shared=True)
            name = block.name if times[block.name] == 1 else block.up.name
            result.append((dataclasses.replace(block, name=name, site=site), trace))
        return result


def _is_module(block: MLPBlock) -> bool:
    return block.site is not None and isinstance(block.site.function, nn.Module)


def _names(candidate: Candidate) -> list[str]:
    return [s.name for s in (candidate.gate, candidate.up, candidate.down) if s is not None]


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0


def _prefix(name: str) -> str:
    return name + "." if name else ""


def _container(candidate: Candidate, common: str, trace: Trace) -> str | None:
    """The smallest module around the layers that takes the block's input alone and returns its output."""
    x, y = trace.linears[candidate.up.name].input, trace.linears[candidate.down.name].output
    around = [c for c in trace.calls if c.attribute is None and _prefix(common).startswith(_prefix(c.name))]
    fitting = [c.name for c in around if c.alone and same(c.input, x) and same(c.output, y)]
    return max(fitting, key=_depth, default=None)


def never_ran(search: Search) -> Iterator[Rejected]:
    """Pairs of layers that widen and narrow again like a block, but of which no trace could be made."""
    names = list(search.sites)
    for up, down in _widening(search):
        between = names[names.index(up) : names.index(down) + 1]
        unloaded = [n for n in between if META in _devices(search.sites[n])]
        if unloaded:
            part = "weight" if search.sites[unloaded[0]].weight.is_meta else "bias"
            reason = f"Its {part} is on the meta device; load it before looking for blocks."
            yield Rejected(name=unloaded[0], reason=reason)
            continue
        broken = [n for n in (up, down) if not is_finite(search.sites[n])]
        if broken:
            yield Rejected(name=broken[0], reason=NOT_FINITE)
        elif up not in search.ran and down not in search.ran:
            yield Rejected(name=up, reason=refusal_of_linear(search.sites[up]) or _why_not_alone(search, between))


def _why_not_alone(search: Search, between: Sequence[str]) -> str:
    devices = sorted({str(device) for name in between for device in _devices(search.sites[name])})
    if len(devices) > 1:
        return f"Its weights and those of {between[-1]} are on several devices, {', '.join(devices)}; move all to one."
    return f"It and {between[-1]} could not be run alone; pass an example input, so that the whole model runs."


def _devices(site: LinearSite) -> set[torch.device]:
    return {t.device for t in (site.weight, site.bias) if t is not None}


def _widening(search: Search) -> Iterator[tuple[str, str]]:
    """Neighbouring layers (d -> more, more -> d) that some module calls and no block has, each layer once."""
    taken = set(search.used)
    shapes, names = search.shapes, list(search.shapes)
    for k, up in enumerate(names):
        out, width = shapes[up]
        if out <= width or up in taken:
            continue
        for down in names[k + 1 : k + 4]:
            fits = shapes[down][0] == width and shapes[down][1] in (out, out // 2)
            caller = search.model.get_submodule(common_name([up, down]))
            if fits and down not in taken and type(caller).forward is not nn.Module.forward:
                taken |= {up, down}
                yield up, down
                break
