"""Find the MLP blocks of any model by what its modules compute, not by what they are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.block import ActivationSite, LinearSite, MLPBlock
from lazyneuron.blocks.identify import identify, same
from lazyneuron.blocks.linears import find_linears, refusal_of_linear
from lazyneuron.blocks.trace import Trace, quiet, trace_locally, trace_model
from lazyneuron.core.errors import NoBlocksError

_MOST_LINEARS = 48  # a module with more is a stack of layers: its parts are traced instead


def find_blocks(model: nn.Module, example: Any = None) -> list[MLPBlock]:
    """The MLP blocks of a model, in the order of its modules.

    Small random inputs run through sub-modules while their linear layers are watched; a block is accepted when the
    input of one linear is numerically an element-wise function of the output of another (or, gated, that function of
    one output times a second output).

    Args:
        model: any module; parameters, buffers, mode, hooks and torch's random state stay as they are.
        example: one batch item; it runs through the whole model where local inputs are not enough.

    Returns:
        The blocks; those whose execution cannot be replaced carry the reason in ``refusal``.

    Raises:
        NoBlocksError: the weights are on the meta device, so nothing can be computed.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> find_blocks(mlp)[0].activation.kind
        'relu'

    Cost:
        About two forwards of four tokens through each layer.
    """
    linears = find_linears(model)
    if any(site.weight.is_meta for site in linears.values()):
        raise NoBlocksError("The weights of this model are on the meta device; load them before looking for blocks.")
    search = _Search(model, linears)
    with quiet(model):
        for name, module in sorted(model.named_modules(), key=lambda item: -_depth(item[0])):
            search.look_inside(name, module)
        if example is not None and search.left_over():
            search.look_at(trace_model(model, example, linears), "", model)
    order = {name: k for k, name in enumerate(linears)}
    return sorted(search.finished(), key=lambda block: order[block.up.name])


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0


def _prefix(name: str) -> str:
    return name + "." if name else ""


@dataclasses.dataclass
class _Search:
    model: nn.Module
    linears: dict[str, LinearSite]
    blocks: list[MLPBlock] = dataclasses.field(default_factory=list)
    used: set[str] = dataclasses.field(default_factory=set)
    seen: set[tuple[str, str]] = dataclasses.field(default_factory=set)

    def pairs(self, prefix: str) -> list[tuple[str, str]]:
        """Pairs (up, down) below a module that fit in shape and were not looked at yet."""
        names = [n for n in self.linears if n.startswith(prefix) and n not in self.used]
        if not 2 <= len(names) <= _MOST_LINEARS:
            return []
        return [
            (a, b)
            for a in names
            for b in names
            if a != b and (a, b) not in self.seen and self.linears[a].weight.shape[0] == self.linears[b].weight.shape[1]
        ]

    def left_over(self) -> bool:
        """Are there linears that might still form a block?"""
        return any(True for n in self.linears if n not in self.used)

    def look_inside(self, name: str, module: nn.Module) -> None:
        """Trace one module if a pair below it is still open."""
        pairs = self.pairs(_prefix(name))
        if not pairs:
            return
        inside = {n: s for n, s in self.linears.items() if n.startswith(_prefix(name))}
        for width in dict.fromkeys(self.linears[a].weight.shape[1] for a, _ in pairs):
            trace = trace_locally(module, inside, int(width))
            if trace is not None:
                self.look_at(trace, name, module)

    def look_at(self, trace: Trace, name: str, module: nn.Module) -> None:
        """Accept the blocks that a trace shows."""
        for down in [n for n in self.linears if n in trace.calls]:
            if down in self.used:
                continue
            block = self._block_before(down, trace, name, module)
            if block is not None:
                self.blocks.append(block)
                self.used |= {s.name for s in (block.up, block.gate, block.down) if s is not None}
        self.seen |= {(a, b) for a in trace.calls for b in trace.calls}

    def _block_before(self, down: str, trace: Trace, name: str, module: nn.Module) -> MLPBlock | None:
        h = trace.calls[down].input
        sources = [
            n
            for n in trace.calls
            if n != down
            and n not in self.used
            and self.linears[n].weight.shape[0] == h.shape[-1]
            and trace.calls[n].output.shape == h.shape
        ]
        for up in sources:
            z = trace.calls[up].output
            if same(z, h):
                continue
            found = self._activation(up, z, h, None, module, name)
            if found is not None:
                return self._make(up, None, down, found, trace, name, module)
        for gate in sources:
            for up in sources:
                if gate == up or not same(trace.calls[gate].input, trace.calls[up].input):
                    continue
                found = self._activation(gate, trace.calls[gate].output, h, trace.calls[up].output, module, name)
                if found is not None:
                    return self._make(up, gate, down, found, trace, name, module)
        return None

    def _activation(
        self, switch: str, z: Tensor, h: Tensor, factor: Tensor | None, module: nn.Module, name: str
    ) -> tuple[Any, ActivationSite | None] | None:
        """The function that turns z into h, and where it is kept."""
        for owner_name, owner, attribute, function in _callables_near(switch, name, module):
            try:
                value = function(z)
            except Exception:
                continue
            if not isinstance(value, Tensor) or value.shape != z.shape:
                continue
            if same(value if factor is None else value * factor, h):
                kind = identify(function)
                if kind.kind == "identity":
                    continue
                return kind, ActivationSite(owner_name=owner_name, owner=owner, attribute=attribute)
        plain = identify(None, z=z, h=h, factor=factor)
        return None if plain is None or plain.kind == "identity" else (plain, None)

    def _make(
        self,
        up: str,
        gate: str | None,
        down: str,
        found: tuple[Any, ActivationSite | None],
        trace: Trace,
        name: str,
        module: nn.Module,
    ) -> MLPBlock:
        names = [n for n in (up, gate, down) if n is not None]
        activation, site = found
        whole = trace.alone and all(same(trace.calls[n].input, trace.input) for n in names if n != down)
        container = name if whole and same(trace.calls[down].output, trace.output) else None
        return MLPBlock(
            name=_common(names),
            up=self.linears[up],
            gate=None if gate is None else self.linears[gate],
            down=self.linears[down],
            activation=activation,
            site=site,
            container=container,
            norm=next((n for n, out in trace.norms.items() if same(out, trace.calls[up].input)), None),
            dropouts=tuple(n for n, m in module.named_modules(prefix=name) if isinstance(m, nn.Dropout))
            if container is not None
            else (),
        )

    def finished(self) -> Iterator[MLPBlock]:
        """The blocks with ``shared`` and ``refusal`` filled in."""
        functions = [None if b.site is None else id(getattr(b.site.owner, b.site.attribute)) for b in self.blocks]
        owners: dict[int, int] = {}
        for module in self.model.modules():
            weight = module._parameters.get("weight")
            if weight is not None and not isinstance(module, nn.Embedding):
                owners[id(weight)] = owners.get(id(weight), 0) + 1
        for block, function in zip(self.blocks, functions, strict=True):
            site = block.site
            if site is not None and isinstance(getattr(site.owner, site.attribute), nn.Module):
                site = dataclasses.replace(site, shared=functions.count(function) > 1)
            yield dataclasses.replace(block, site=site, refusal=_refusal(block, owners))


def _refusal(block: MLPBlock, owners: dict[int, int]) -> str | None:
    for site in (block.up, block.gate, block.down):
        if site is None:
            continue
        reason = refusal_of_linear(site)
        if reason is not None:
            return reason
        if owners.get(id(site.module._parameters.get("weight")), 1) > 1:
            return f"The weight of {site.name} is shared with another layer; untie it first."
    if block.container is None:
        if block.site is None:
            return "The activation is called inside a forward that does more than this block, so it cannot be replaced."
        if block.d_out == block.d_hidden:
            return "The block is spread over several modules and its output is as wide as its hidden layer."
        held = getattr(block.site.owner, block.site.attribute)
        if isinstance(held, nn.Module) and (held._forward_hooks or held._forward_pre_hooks):
            return f"The activation {block.site.owner_name}.{block.site.attribute} has hooks; remove them first."
    return None


def _common(names: list[str]) -> str:
    parts = [n.split(".")[:-1] for n in names]
    shared = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)


def _callables_near(switch: str, name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """Functions and parameter-poor modules kept by modules around a linear, nearest first."""
    inner = switch[len(_prefix(name)) :].split(".")[:-1]
    given: set[tuple[int, str]] = set()
    for keep in range(len(inner), -1, -1):
        below = ".".join(inner[:keep])
        root = module.get_submodule(below) if below else module
        start = ".".join(p for p in (name, below) if p)
        for owner_name, owner in root.named_modules(prefix=start):
            for attribute, value in (*owner._modules.items(), *owner.__dict__.items()):
                if (id(owner), attribute) in given or not _may_be_activation(attribute, value):
                    continue
                given.add((id(owner), attribute))
                yield owner_name, owner, attribute, value


def _may_be_activation(attribute: str, value: Any) -> bool:
    if isinstance(value, nn.Module):
        return not isinstance(value, nn.Dropout) and all(p.ndim < 2 for p in value.parameters())
    return not attribute.startswith("_") and attribute != "forward" and callable(value) and not isinstance(value, type)
