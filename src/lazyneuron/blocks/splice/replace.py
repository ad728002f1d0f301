"""Replace how a block is executed, or its activation function, in place and undoably."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import ActivationSite, MLPBlock
from lazyneuron.blocks.identify import identify
from lazyneuron.blocks.splice.override import Both, First, Neutral, Pass, Run, Whole
from lazyneuron.blocks.splice.wiring import Wiring
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.undo import Transaction

_FUSED = {"relu": 1, "gelu": 2}  # the functions that nn.TransformerEncoderLayer's native path knows, by its own numbers


class ActivationModule(nn.Module):
    """An activation function as a module that declares what it is; it holds no parameters."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self._activation = activation

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return self._activation

    def forward(self, z: Tensor) -> Tensor:
        """The function's value."""
        return self._activation(z)

    def extra_repr(self) -> str:
        """Kind and parameters."""
        return ", ".join([self._activation.kind, *map(str, self._activation.parameters)])


def splice_(change: Transaction, block: MLPBlock, run: Run, *, model: nn.Module | None = None) -> Wiring:
    """Let ``run`` execute a block.

    In a block with a ``container``, ``run`` stands in its forward. In one that is spread over several modules it stands
    in that of ``up``; activation and ``down`` then let through what is as wide as the block's output. Where ``run``
    returns None the original modules compute what they always did, bitwise.

    Args:
        change: the open transaction on the model that the block was found in; restoring it takes everything back.
        block: a block without ``refusal``.
        run: takes the block's input; returns its output, or None for "use the original path".
        model: the model, if it is not the transaction's.

    Returns:
        The block's modules as they are now. A block spread over several modules looks there at each call: once one of
        its modules is replaced, hooked or wrapped, all of them compute what they did before; a ``run`` in a container
        has to look by itself.

    Raises:
        ConfigError: the block cannot be replaced, or already is.
    """
    if block.refusal is not None:
        raise ConfigError(f"The execution of {block.name} cannot be replaced: {block.refusal}")
    model = change.model if model is None else model
    container = None if block.container is None else model.get_submodule(block.container)
    modules = [site.module for site in block.linears] + ([] if container is None else [container])
    if any("forward" in module.__dict__ for module in modules):
        raise ConfigError(f"The execution of {block.name} was replaced already; restore that change first.")
    if container is not None:
        change.set(container, "forward", Whole(container, run, first_parameter(container)))
        return Wiring(block, model)
    return _splice_spread(change, block, run, model)


def _splice_spread(change: Transaction, block: MLPBlock, run: Run, model: nn.Module) -> Wiring:
    site, up = block.site, block.up.module
    assert site is not None
    parts: tuple[Neutral | Both, ...] = ()
    if block.gate is None:
        change.set(up, "forward", First(up, run))
    else:
        gate = block.gate.module
        parts = (Neutral(gate), Both(up, run, gate=gate, owner=site.owner, attribute=site.attribute))
        for part in parts:
            change.set(part.module, "forward", part)
    change.set(block.down.module, "forward", Pass(block.down.module, block.d_out))
    held = site.function
    if isinstance(held, nn.Module):
        before = held.__dict__.get("forward", held)
        change.set(held, "forward", Pass(before, block.d_out))
    else:
        change.set(site.owner, site.attribute, Pass(held, block.d_out))
    _leave_fast_path(change, model, site, kind="other")
    wiring = Wiring(block, model)
    for part in parts:
        part.wiring = wiring
    return wiring


def first_parameter(module: nn.Module) -> str:
    """The name of what a module's ``forward`` takes first."""
    return list(inspect.signature(type(module).forward).parameters)[1]


def replace_activation_(
    change: Transaction, block: MLPBlock, activation: Activation | nn.Module | Callable[[Tensor], Tensor]
) -> None:
    """Put another activation function in a block.

    Args:
        change: the open transaction on the model that the block was found in.
        block: a block whose ``site`` is known. Another block that reads the same attribute changes with it.
        activation: the new function, as a fact, a module or a plain function.

    Raises:
        ConfigError: the function is written into a forward, or the block's execution is replaced.
    """
    site = block.site
    if site is None:
        raise ConfigError(
            f"The activation of {block.name} is written into a forward; hold it as an attribute to replace it."
        )
    if isinstance(site.function, Pass) or isinstance(getattr(site.function, "__dict__", {}).get("forward"), Pass):
        raise ConfigError(f"The execution of {block.name} is replaced; restore that change before its activation's.")
    new = _as_held(activation, site)
    change.set(site.owner, site.attribute, new)
    if isinstance(new, nn.Module) and type(site.owner).__setstate__ is not nn.Module.__setstate__:
        site.owner.__dict__[site.attribute] = new  # else a copy of torch's decoder layer gets ReLU there
    _leave_fast_path(change, change.model, site, kind=identify(new).kind)


def _as_held(activation: Any, site: ActivationSite) -> Any:
    """A module where a module was, since nn.Sequential and others call nothing else, in the mode of its owner."""
    if (
        not isinstance(activation, nn.Module)
        and not isinstance(activation, Activation)
        and isinstance(site.function, nn.Module)
    ):
        activation = identify(activation)
    if isinstance(activation, Activation):
        activation = ActivationModule(activation)
        activation.training = site.owner.training
    return activation


def _leave_fast_path(change: Transaction, model: nn.Module, site: ActivationSite, *, kind: str) -> None:
    """Keep torch's fused native path from computing a transformer layer past its modules.

    A layer takes it only if its ``activation_relu_or_gelu`` names the function; an encoder packs padded input for it if
    ``use_nested_tensor``.
    """
    owner: nn.Module | None = model
    for part in (*site.owner_name.split("."), ""):
        assert owner is not None
        if owner.__dict__.get("activation_relu_or_gelu"):
            change.set(owner, "activation_relu_or_gelu", _FUSED.get(kind, 0))
        if owner.__dict__.get("use_nested_tensor") and kind not in _FUSED:
            change.set(owner, "use_nested_tensor", False)
        if part:
            owner = owner._modules[part]
