"""What stands for activations, dropouts, `down` and whole gated blocks while a model's activations are packed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook as _any_hook

from lazyneuron.blocks.activation import Activation, DeclaresActivation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice.override import Override
from lazyneuron.train.packing.costs import BlockShape, costs_for
from lazyneuron.train.packing.functions import activate, down, drop, pack_itself
from lazyneuron.train.packing.packed import Packed, Rule, attached, is_packable
from lazyneuron.train.packing.sparse import sparse_down, up

_REASON = "lazyneuron packs what fires between the compiled parts of a model"


def takes_sparse(x: Tensor) -> bool:
    """Are these numbers that sparse products take as they are?"""
    return x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def is_watched(module: nn.Module) -> bool:
    """Do hooks see what a module receives? Those that say ``only_output = True`` do not."""
    own = module.__dict__
    if own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"] or _any_hook():  # type: ignore[no-untyped-call]
        return True
    return not all(getattr(hook, "only_output", False) for hook in own["_forward_hooks"].values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseSteps:
    """When a block's step is computed by what fires alone.

    Attributes:
        shape: of the block.
        always: whatever it costs.
    """

    shape: BlockShape
    always: bool = False

    def pay(self, h: Tensor, packed: Packed) -> bool:
        """Is this call to be sparse: possible, with nobody watching the gradient, and faster?"""
        if not takes_sparse(h) or packed.kept is not None or packed.watched or h._backward_hooks or h.retains_grad:
            return False
        tokens = packed.bits.shape[0]
        return self.always or costs_for(self.shape, tokens).is_sparse_faster(tokens, packed.values.numel())


@dataclasses.dataclass
class Tally:
    """What one block kept, and would have kept, in all forwards.

    Attributes:
        kept_bytes: of its hidden layer, packed.
        tokens: that went through ``down``.
        dense_bytes: what its own code keeps of the hidden layer for one token.
        sparse_calls: of ``down``, that were computed by what fires alone.
        dense_calls: the others.
    """

    kept_bytes: int = 0
    tokens: int = 0
    dense_bytes: int = 0
    sparse_calls: int = 0
    dense_calls: int = 0


class PackedActivation(Override):
    """Stands for an activation function, or the ``forward`` of an activation module."""

    def __init__(self, held: Any, found: Activation, *, rectifies_up: bool = False) -> None:
        self.module = held  # a module, or the function itself
        self.found = found
        self.rectifies_up = rectifies_up

    def original(self, z: Tensor) -> Tensor:
        """The model's own code."""
        value: Tensor = type(self.module).forward(self.module, z) if self._is_module else self.module(z)
        return value

    @property
    def _is_module(self) -> bool:
        return isinstance(self.module, nn.Module)

    def rule(self) -> Rule:
        """The function as it is now: a ramp may have moved it since."""
        now = self.module.activation_spec() if isinstance(self.module, DeclaresActivation) else self.found
        return Rule(now, self.rectifies_up)

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return self.rule().activation

    def __call__(self, z: Tensor) -> Any:
        """The hidden activation of a plain block."""
        return self.applied(z, None)

    def applied(self, z: Tensor, u: Tensor | None) -> Tensor:
        """The hidden activation, packed where a gradient is wanted."""
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            value: Tensor = outside_graph(self._applied, z, u)
            return value
        return self._applied(z, u)

    def _applied(self, z: Tensor, u: Tensor | None) -> Tensor:
        wanted = z.requires_grad or (u is not None and u.requires_grad)
        if wanted and is_packable(z) and (u is None or is_packable(u)):
            rule = self.rule()
            if not rule.zero.empty or rule.activation.kind == "identity":
                return activate(self.original, rule, z, u, watched=self._is_module and bool(self.module._forward_hooks))
        h = self.original(z)
        return h if u is None else h * (u.relu() if self.rectifies_up else u)

    def __getattr__(self, name: str) -> Any:
        if name in ("module", "found", "rectifies_up") or name.startswith("__"):  # while it is being copied
            raise AttributeError(name)
        return getattr(self.module, name)


class PackedDropout(Override):
    """Stands for the ``forward`` of a dropout between activation and ``down``."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def _original(self, h: Tensor) -> Tensor:
        dropped: Tensor = type(self.module).forward(self.module, h)
        return dropped

    def __call__(self, h: Tensor) -> Any:
        """The hidden activation after dropout, with what it carried."""
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return outside_graph(self._dropped, h)
        return self._dropped(h)

    def _dropped(self, h: Tensor) -> Tensor:
        packed = attached(h) if is_packable(h) else None
        idle = not self.module.training or getattr(self.module, "p", None) == 0
        if packed is None or packed.kept is not None or idle:
            return self._original(h)
        return drop(h, packed, self._original)


class PackedDown(Override):
    """Stands for the ``forward`` of a linear layer that takes a hidden activation."""

    def __init__(
        self, module: nn.Module, tally: Tally, *, transposed: bool = False, sparse: SparseSteps | None = None
    ) -> None:
        self.module = module
        self.tally = tally
        self.transposed = transposed
        self.sparse = sparse

    def _original(self, h: Tensor) -> Tensor:
        y: Tensor = type(self.module).forward(self.module, h)
        return y

    def __call__(self, h: Tensor) -> Any:
        """The layer's output; its input is kept packed."""
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return outside_graph(self._output, h)
        return self._output(h)

    def _output(self, h: Tensor) -> Tensor:
        weight: Any = self.module.weight
        bias: Any = self.module.bias
        if not is_packable(h) or type(weight.data) is not Tensor:
            return self._original(h)
        known = attached(h)
        if known is None and not weight.requires_grad:
            return self._original(h)  # which keeps nothing of it
        packed = pack_itself(h) if known is None else known
        self.tally.kept_bytes += packed.nbytes
        self.tally.tokens += packed.bits.shape[0]
        if not weight.requires_grad:
            return self._original(h)
        rows = weight.t() if self.transposed else weight
        steps = None if known is None or is_watched(self.module) else self.sparse
        if steps is not None and steps.pay(h, packed):
            self.tally.sparse_calls += 1
            return sparse_down(h, packed, weight=rows, bias=bias)
        self.tally.dense_calls += 1
        return down(h, packed, weight=rows, bias=bias, linear=self._original)


def tally_of(block: MLPBlock) -> Tally | None:
    """The tally of a block whose hidden activations are packed, else None."""
    for module in block.down.module.modules():
        override = module.__dict__.get("forward")
        if isinstance(override, PackedDown):
            return override.tally
    return None


class PackedUp(Override):
    """Stands for the ``forward`` of a layer in front of the activation: its gradients take only what fires."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def _original(self, x: Tensor) -> Tensor:
        z: Tensor = type(self.module).forward(self.module, x)
        return z

    def __call__(self, x: Tensor) -> Any:
        """The layer's own output."""
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return outside_graph(self._output, x)
        return self._output(x)

    def _output(self, x: Tensor) -> Tensor:
        weight: Any = self.module.weight
        bias: Any = self.module.bias
        wanted = x.requires_grad or weight.requires_grad
        if not wanted or not is_packable(x) or not takes_sparse(x) or type(weight.data) is not Tensor:
            return self._original(x)
        return up(x, weight=weight, bias=bias, linear=self._original)


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
        h = self.activation.applied(z, u)
        del z, u, out
        for dropout in self.dropouts:
            h = dropout(h)
        y: Tensor = block.down.module(h)
        return y


@torch.compiler.disable(reason=_REASON)  # type: ignore[no-untyped-call, untyped-decorator]
def outside_graph(call: Callable[..., Tensor], *args: Any) -> Tensor:
    """Run what a compiler cannot keep in its graph: how much is kept is known only when it runs."""
    return call(*args)
