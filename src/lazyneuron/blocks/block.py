"""The MLP block: the one structure that every other room works on."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.adapter import additions


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearSite:
    """A linear layer of a block, whatever its class.

    Attributes:
        name: dotted name in the model.
        module: the layer; it has ``weight`` and maybe ``bias``.
        transposed: True when ``weight`` is stored as (in, out), as in GPT-2's ``Conv1D``.
        rows: the output features that are meant, as (start, stop), when one layer computes ``gate`` and ``up``
            together; None for all of them.
    """

    name: str
    module: nn.Module
    transposed: bool = False
    rows: tuple[int, int] | None = None

    @property
    def weight(self) -> Tensor:
        """The weight as a view of shape (out, in), without what an adapter adds."""
        weight = _tensor_of(self.module, "weight")
        assert weight is not None
        weight = weight.t() if self.transposed else weight
        return weight if self.rows is None else weight[slice(*self.rows)]

    @property
    def bias(self) -> Tensor | None:
        """The bias of shape (out,), if there is one."""
        bias = _tensor_of(self.module, "bias")
        return bias if bias is None or self.rows is None else bias[slice(*self.rows)]

    @property
    def adapted(self) -> bool:
        """Whether an adapter, as PEFT's, stands around the layer."""
        return "base_layer" in self.module._modules

    @property
    def effective_weight(self) -> Tensor:
        """What inputs are multiplied by now, (out, in): the weight, with what an adapter adds to it.

        Raises:
            ConfigError: an adapter does something else than adding to the weight.

        Cost: with an adapter the product of its factors.
        """
        if not self.adapted:
            return self.weight
        weight = _tensor_of(self.module, "weight")
        assert weight is not None
        for delta in additions(self.module, self.name):
            weight = weight + delta.to(weight)
        weight = weight.t() if self.transposed else weight
        return weight if self.rows is None else weight[slice(*self.rows)]

    def part_of(self, output: Tensor) -> Tensor:
        """What this site contributed to an output of :attr:`module`: all of it, or its rows of a merged layer."""
        return output if self.rows is None else output[..., slice(*self.rows)]


def _tensor_of(module: nn.Module, name: str) -> Tensor | None:
    holder = module._modules.get("base_layer") or module  # an adapter stands for what it wraps
    value: Any = getattr(holder, name, None)
    if callable(value) and not isinstance(value, Tensor):  # torch's quantised layers unpack theirs by a method
        value = value()
    return value if isinstance(value, Tensor) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActivationSite:
    """Where a block's activation function is called.

    Attributes:
        owner_name: dotted name of the module that holds the function.
        owner: that module.
        attribute: its attribute; ``getattr(owner, attribute)`` is called with the pre-activation.
        shared: True when other blocks call the very same object.
    """

    owner_name: str
    owner: nn.Module
    attribute: str
    shared: bool = False

    @property
    def function(self) -> Any:
        """The function or module that is there now."""
        return getattr(self.owner, self.attribute)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPBlock:
    """``down(s(up(x)))``, or ``down(s(gate(x)) * up(x))`` when gated.

    Attributes:
        name: dotted name of the smallest module that holds the whole block; where one module holds several blocks, the
            name of ``up``. Unique within a model.
        up, gate, down: its linear layers; ``gate`` is None for a plain block.
        activation: the function ``s``.
        site: where ``s`` is called, or None when it is written into a forward and cannot be replaced.
        container: dotted name of a module whose ``forward(x)`` *is* this block (one tensor in, one out), else None.
        norm: dotted name of the normalisation that feeds the block, when it was found.
        dropouts: dotted names of the modules that may drop hidden activations, between activation and ``down``.
        rectifies_up: True for ``down(s(gate(x)) * relu(up(x)))`` (dReLU), by :func:`rectify_up_` or the model itself.
        rectified_by_model: True when the model's own code rectifies ``up``.
        refusal: one sentence why execution cannot be replaced, or None when it can.
    """

    name: str
    up: LinearSite
    down: LinearSite
    activation: Activation
    gate: LinearSite | None = None
    site: ActivationSite | None = None
    container: str | None = None
    norm: str | None = None
    dropouts: tuple[str, ...] = ()
    rectifies_up: bool = False
    rectified_by_model: bool = False
    refusal: str | None = None

    @property
    def d_in(self) -> int:
        """Width of the block's input."""
        return int(self.up.weight.shape[1])

    @property
    def d_hidden(self) -> int:
        """Number of neurons."""
        return int(self.up.weight.shape[0])

    @property
    def d_out(self) -> int:
        """Width of the block's output."""
        return int(self.down.weight.shape[0])

    @property
    def first(self) -> LinearSite:
        """The layer whose output decides what fires: ``gate`` if there is one, else ``up``."""
        return self.gate if self.gate is not None else self.up

    @property
    def linears(self) -> tuple[LinearSite, ...]:
        """Its linear layers: gate (if any), up, down."""
        return tuple(site for site in (self.gate, self.up, self.down) if site is not None)

    def pre_activation(self, x: Tensor) -> Tensor:
        """What decides what fires, (..., d_hidden), for inputs (..., d_in)."""
        return F.linear(x, self.first.effective_weight, self.first.bias)

    def factor(self, x: Tensor) -> Tensor | None:
        """What a gated block's ``s(gate(x))`` is multiplied by, (..., d_hidden); None for a plain block."""
        if self.gate is None:
            return None
        u = F.linear(x, self.up.effective_weight, self.up.bias)
        return F.relu(u) if self.rectifies_up else u

    def hidden(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """What ``down`` receives, (..., d_hidden); ``z`` is the pre-activation, if it is there already."""
        h = self.activation(self.pre_activation(x) if z is None else z)
        u = self.factor(x)
        return h if u is None else h * u

    def output(self, h: Tensor) -> Tensor:
        """``down`` of a hidden activation, (..., d_out), cast to the weights' dtype first."""
        weight = self.down.effective_weight
        return F.linear(h.to(weight.dtype), weight, self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The block as torch's dense layers run it, without its dropouts; the weights are read at each call."""
        return self.output(self.hidden(x))
