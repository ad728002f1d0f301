"""What stands for activations, dropouts, `down` and whole gated blocks while a model's activations are packed."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation, DeclaresActivation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice.override import Override
from lazyneuron.train.packing.functions import activate, down, drop, pack_itself
from lazyneuron.train.packing.packed import Rule, attached, is_packable
from lazyneuron.train.packing.source import attach_source, source_of
from lazyneuron.train.packing.sparse import sparse_down, up
from lazyneuron.train.packing.steps import SparseSteps, Tally, is_watched, takes_sparse

_REASON = "lazyneuron packs what fires between the compiled parts of a model"


class Packing(Override):
    """Stands for the ``forward`` of a module, or for a function.

    Attributes:
        compiled: whether a compiler takes the model's own code here; else it leaves this out of its graph.
    """

    compiled = False

    def __init__(self, held: Any) -> None:
        self.module = held

    def original(self, x: Tensor) -> Tensor:
        """The model's own code."""
        y: Tensor = type(self.module).forward(self.module, x) if isinstance(self.module, nn.Module) else self.module(x)
        return y

    def __call__(self, x: Tensor, *others: Tensor | None) -> Any:
        """The output; what its backward needs is kept packed."""
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return self.original(x) if self.compiled else outside_graph(self.run, x, *others)
        return self.run(x, *others)

    @abc.abstractmethod
    def run(self, x: Tensor, *others: Any) -> Tensor:
        """The same outside of any graph."""


class PackedActivation(Packing):
    """Stands for an activation function, or the ``forward`` of an activation module."""

    def __init__(self, held: Any, found: Activation, *, rectifies_up: bool = False) -> None:
        super().__init__(held)
        self.declares = isinstance(held, DeclaresActivation)
        self.known = Rule(found, rectifies_up)

    def rule(self) -> Rule:
        """The function as it is now: a ramp may have moved it since."""
        held: Any = self.module
        return Rule(held.activation_spec(), self.known.rectifies_up) if self.declares else self.known

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return self.rule().activation

    def run(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """The hidden activation, times ``u`` of a gated block; packed where a gradient is wanted."""
        wanted = z.requires_grad or (u is not None and u.requires_grad)
        if wanted and is_packable(z) and (u is None or is_packable(u)):
            rule = self.rule()
            if not rule.zero.empty or rule.activation.kind == "identity":
                watched = isinstance(self.module, nn.Module) and bool(self.module._forward_hooks)
                return activate(self.original, rule, z, u, watched=watched)
        h = self.original(z)
        return h if u is None else h * (u.relu() if self.known.rectifies_up else u)

    def __getattr__(self, name: str) -> Any:
        if name in ("module", "known", "declares") or name.startswith("__"):  # while it is being copied
            raise AttributeError(name)
        return getattr(self.module, name)


class PackedDropout(Packing):
    """Stands for the ``forward`` of a dropout between activation and ``down``."""

    def run(self, h: Tensor) -> Tensor:
        """The hidden activation after dropout, with what it carried."""
        packed = attached(h) if is_packable(h) else None
        idle = not self.module.training or getattr(self.module, "p", None) == 0
        if packed is None or packed.kept is not None or idle:
            return self.original(h)
        return drop(h, packed, self.original)


class PackedDown(Packing):
    """Stands for the ``forward`` of a linear layer that takes a hidden activation."""

    def __init__(
        self, module: nn.Module, tally: Tally, *, transposed: bool = False, sparse: SparseSteps | None = None
    ) -> None:
        super().__init__(module)
        self.tally = tally
        self.transposed = transposed
        self.sparse = sparse

    def run(self, h: Tensor) -> Tensor:
        """The layer's output; its input is kept packed."""
        weight: Any = self.module.weight
        bias: Any = self.module.bias
        if not is_packable(h) or type(weight.data) is not Tensor:
            return self.original(h)
        known = attached(h)
        if known is None and not weight.requires_grad:
            return self.original(h)  # which keeps nothing of it
        packed = pack_itself(h) if known is None else known
        self.tally.kept_bytes += packed.nbytes
        self.tally.tokens += packed.bits.shape[0]
        if not weight.requires_grad:
            return self.original(h)
        rows = weight.t() if self.transposed else weight
        steps = None if known is None or is_watched(self.module) else self.sparse
        if steps is not None and steps.pay(h, packed):
            self.tally.sparse_calls += 1
            return sparse_down(h, packed, weight=rows, bias=bias)
        self.tally.dense_calls += 1
        return down(h, packed, weight=rows, bias=bias, linear=self.original)


def tally_of(block: MLPBlock) -> Tally | None:
    """The tally of a block whose hidden activations are packed, else None."""
    for module in block.down.module.modules():
        override = module.__dict__.get("forward")
        if isinstance(override, PackedDown):
            return override.tally
    return None


class PackedNorm(Packing):
    """Stands for the ``forward`` of the norm in front of a block, whose output says where it came from."""

    compiled = True

    def run(self, x: Tensor) -> Tensor:
        """The norm's own output."""
        y = self.original(x)
        return attach_source(y, x, self.module) if is_packable(x) else y


class PackedUp(Packing):
    """Stands for the ``forward`` of a layer in front of the activation.

    Args:
        module: the layer.
        transposed: whether its weight is stored as (in, out).
        sparse: whether its gradients take only what fires, where that is possible.
    """

    def __init__(self, module: nn.Module, *, transposed: bool = False, sparse: bool = False) -> None:
        super().__init__(module)
        self.transposed = transposed
        self.sparse = sparse
        self.compiled = not sparse

    def run(self, x: Tensor) -> Tensor:
        """The layer's own output; what a norm made is made again for the backward."""
        weight: Any = self.module.weight
        bias: Any = self.module.bias
        if not is_packable(x) or type(weight.data) is not Tensor:
            return self.original(x)
        source = source_of(x) if weight.requires_grad else None
        sparse = self.sparse and takes_sparse(x) and (x.requires_grad or weight.requires_grad)
        if source is None and not sparse:
            return self.original(x)
        rows = weight.t() if self.transposed else weight
        return up(x, weight=rows, bias=bias, linear=self.original, source=source)


class GatedRun:
    """Runs a gated block by its modules, whose hooks are called; None where its own code has to run."""

    def __init__(self, block: MLPBlock, held: Any, dropouts: tuple[nn.Module, ...]) -> None:
        self.block = block
        self.dropouts = dropouts
        self.activation = PackedActivation(held, block.activation, rectifies_up=block.rectifies_up)

    def __call__(self, x: Tensor) -> Tensor | None:
        """The block's output."""
        block = self.block
        if not torch.compiler.is_compiling() and not is_packable(x):
            return None
        out = block.first.module(x)
        z, u = block.first.part_of(out), None
        if block.gate is not None:
            same = block.up.module is block.gate.module
            u = block.up.part_of(out if same else block.up.module(x))
        h = self.activation(z, u)
        del z, u, out
        for dropout in self.dropouts:
            h = dropout(h)
        y: Tensor = block.down.module(h)
        return y


@torch.compiler.disable(reason=_REASON)  # type: ignore[no-untyped-call, untyped-decorator]
def outside_graph(call: Callable[..., Tensor], *args: Any) -> Tensor:
    """Run what a compiler cannot keep in its graph: how much is kept is known only when it runs."""
    return call(*args)
