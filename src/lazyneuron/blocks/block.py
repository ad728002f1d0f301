"""The MLP block: the one structure that every other room works on."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearSite:
    """A linear layer of a block, whatever its class.

    Attributes:
        name: dotted name in the model.
        module: the layer; it has ``weight`` and maybe ``bias``.
        transposed: True when ``weight`` is stored as (in, out), as in GPT-2's ``Conv1D``.
    """

    name: str
    module: nn.Module
    transposed: bool = False

    @property
    def weight(self) -> Tensor:
        """The weight as a view of shape (out, in)."""
        holder = self.module._modules.get("base_layer") or self.module  # an adapter stands for what it wraps
        weight = holder.weight
        assert isinstance(weight, Tensor)
        return weight.t() if self.transposed else weight

    @property
    def bias(self) -> Tensor | None:
        """The bias of shape (out,), if there is one."""
        holder = self.module._modules.get("base_layer") or self.module
        bias = getattr(holder, "bias", None)
        return bias if isinstance(bias, Tensor) else None


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPBlock:
    """``down(s(up(x)))``, or ``down(s(gate(x)) * up(x))`` when gated.

    Attributes:
        name: dotted name of the smallest module that holds the whole block.
        up, gate, down: its linear layers; ``gate`` is None for a plain block.
        activation: the function ``s``.
        site: where ``s`` is called, or None when it is written into a forward and cannot be replaced.
        container: dotted name of a module whose ``forward(x)`` *is* this block (one tensor in, one out), else None.
        norm: dotted name of the normalisation that feeds the block, when it was found.
        dropouts: dotted names of the dropout modules between activation and ``down``.
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
    def switch(self) -> LinearSite:
        """The layer whose output decides what fires: ``gate`` if there is one, else ``up``."""
        return self.gate if self.gate is not None else self.up
