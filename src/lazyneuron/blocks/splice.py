"""Replace how a block is executed, or its activation function, in place and undoably."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.undo import Transaction

Run = Callable[[Tensor], "Tensor | None"]


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


class Whole:
    """Stands for the ``forward`` of a module that is one block."""

    def __init__(self, module: nn.Module, run: Run) -> None:
        self.module = module
        self.run = run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The replaced execution, or the original when ``run`` declines or the call has another form."""
        if len(args) == 1 and not kwargs:
            y = self.run(args[0])
            if y is not None:
                return y
        return type(self.module).forward(self.module, *args, **kwargs)


class First:
    """Stands for the ``forward`` of the layer that a spread block enters first; returns the block's output."""

    def __init__(self, module: nn.Module, run: Run) -> None:
        self.module = module
        self.run = run

    def __call__(self, x: Tensor) -> Tensor:
        """The block's output, or the layer's own when ``run`` declines."""
        y = self.run(x)
        if y is not None:
            return y
        own: Tensor = type(self.module).forward(self.module, x)
        return own


class Pass:
    """Stands for a function or a ``forward`` after :class:`First`: lets the block's output through.

    It tells by the width, which is the block's output's and not the hidden layer's, so it holds no state.
    """

    def __init__(self, original: Any, d_hidden: int) -> None:
        self.original = original
        self.d_hidden = d_hidden

    def __call__(self, x: Tensor) -> Any:
        """``x`` itself if it is a block's output, else the original."""
        if x.shape[-1] != self.d_hidden:
            return x
        if isinstance(self.original, nn.Module):
            return type(self.original).forward(self.original, x)
        return self.original(x)


def splice_(change: Transaction, block: MLPBlock, run: Run, *, model: nn.Module) -> None:
    """Let ``run`` execute a block.

    Args:
        change: the open transaction; restoring it takes everything back.
        block: a block without ``refusal``.
        run: takes the block's input; returns its output, or None for "use the original path".
        model: the model that the block was found in.

    Raises:
        ConfigError: the block cannot be replaced, or already is.
    """
    if block.refusal is not None:
        raise ConfigError(f"The execution of {block.name} cannot be replaced: {block.refusal}")
    layers = [s.module for s in (block.up, block.gate, block.down) if s is not None]
    container = None if block.container is None else model.get_submodule(block.container)
    if any("forward" in m.__dict__ for m in (*layers, *([container] if container is not None else []))):
        raise ConfigError(f"The execution of {block.name} was replaced already; restore that change first.")
    if container is not None:
        change.set(container, "forward", Whole(container, run))
        return
    if block.gate is not None:
        raise ConfigError(f"{block.name} is gated and spread over several modules, which is not supported.")
    assert block.site is not None
    change.set(block.up.module, "forward", First(block.up.module, run))
    change.set(block.down.module, "forward", Pass(block.down.module, block.d_hidden))
    held = getattr(block.site.owner, block.site.attribute)
    if isinstance(held, nn.Module):
        # a module that several blocks share is overridden once: all of them pass by width
        if not isinstance(held.__dict__.get("forward"), Pass):
            change.set(held, "forward", Pass(held, block.d_hidden))
    else:
        change.set(block.site.owner, block.site.attribute, Pass(held, block.d_hidden))
    _leave_fast_path(change, block.site.owner)


def replace_activation_(
    change: Transaction, block: MLPBlock, activation: Activation | nn.Module | Callable[[Tensor], Tensor]
) -> None:
    """Put another activation function in a block.

    Args:
        change: the open transaction.
        block: a block whose ``site`` is known.
        activation: the new function, as a fact, a module or a plain function.

    Raises:
        ConfigError: the function is written into a forward.
    """
    if block.site is None:
        raise ConfigError(f"The activation of {block.name} is called inside a forward; rewrite it as an attribute.")
    new = ActivationModule(activation) if isinstance(activation, Activation) else activation
    change.set(block.site.owner, block.site.attribute, new)
    _leave_fast_path(change, block.site.owner)


def _leave_fast_path(change: Transaction, owner: nn.Module) -> None:
    # nn.TransformerEncoderLayer hands its weights to one fused native call, past every module, unless this is 0
    if owner.__dict__.get("activation_relu_or_gelu"):
        change.set(owner, "activation_relu_or_gelu", 0)
