"""What stands for a module's ``forward`` or an activation function while a block's execution is replaced.

Instances live in the ``__dict__`` of modules, so classes, parameters and ``state_dict`` keys stay as they were, and
``copy.deepcopy`` of a model carries copies that point into the copy. None of them holds state between calls.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lazyneuron.blocks.splice.wiring import Wiring


class Noticing(Protocol):
    """What wants to know of switches."""

    def notice(self) -> None:
        """The mode was set, maybe to what it was."""


Run = Callable[[Tensor], "Tensor | None"]


class Override:
    """Base of everything that is set as an instance attribute ``forward``.

    ``torch.export`` reads the code and the signature of a model's ``forward``: they are those of the class.
    """

    module: nn.Module

    @property
    def __code__(self) -> types.CodeType:
        code: types.CodeType = type(self.module).forward.__code__
        return code

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(types.MethodType(type(self.module).forward, self.module))


class Whole(Override):
    """Stands for the ``forward`` of a module that is one block."""

    def __init__(self, module: nn.Module, run: Run, argument: str) -> None:
        self.module = module
        self.run = run
        self.argument = argument

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The replaced execution, or the original when ``run`` declines or the call has another form."""
        x = None
        if len(args) == 1 and not kwargs:
            x = args[0]
        elif len(kwargs) == 1 and not args:
            x = kwargs.get(self.argument)
        if x is not None:
            y = self.run(x)
            if y is not None:
                return y
        return type(self.module).forward(self.module, *args, **kwargs)


class First(Override):
    """Stands for the ``forward`` of the first layer of a plain block that is spread over several modules."""

    def __init__(self, module: nn.Module, run: Run) -> None:
        self.module = module
        self.run = run

    def __call__(self, x: Tensor) -> Any:
        """The block's output, or the layer's own when ``run`` declines."""
        y = self.run(x)
        return y if y is not None else type(self.module).forward(self.module, x)


class Neutral(Override):
    """Stands for the ``forward`` of ``gate`` in a gated block that is spread over several modules.

    In evaluation mode it gives a scalar 1, which the activation lets through, and :class:`Both` does all the work; so
    no decision has to be handed from one layer to the other.
    """

    wiring: Wiring

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Any:
        """A scalar 1, or in training mode and in a block that was changed the layer's own output."""
        if stands_down(self.wiring, x):
            return type(self.module).forward(self.module, x)
        return x.new_ones(())


class Both(Override):
    """Stands for the ``forward`` of ``up`` in a gated block that is spread over several modules."""

    wiring: Wiring

    def __init__(self, module: nn.Module, run: Run, *, gate: nn.Module, owner: nn.Module, attribute: str) -> None:
        self.module = module
        self.run = run
        self.gate = gate
        self.owner = owner
        self.attribute = attribute

    def __call__(self, x: Tensor) -> Any:
        """The block's output or, when ``run`` declines, the gated hidden activation; else as :class:`Neutral`."""
        if stands_down(self.wiring, x):
            return type(self.module).forward(self.module, x)
        y = self.run(x)
        if y is not None:
            return y
        z = type(self.gate).forward(self.gate, x)
        return getattr(self.owner, self.attribute)(z) * type(self.module).forward(self.module, x)


class Pass(Override):
    """Stands for a function or a ``forward`` that comes after one of the above: lets the block's output through.

    It tells by the width, which is the block's output's and not the hidden layer's.
    """

    def __init__(self, original: Any, d_out: int) -> None:
        self.original = original
        self.d_out = d_out

    def __call__(self, x: Tensor) -> Any:
        """``x`` itself if it is a block's output or neutral, else the original."""
        if is_dense(x) and (x.ndim == 0 or x.shape[-1] == self.d_out):
            return x
        if isinstance(self.original, nn.Module):
            return type(self.original).forward(self.original, x)
        return self.original(x)


class Mode:
    """Stands for the ``train`` of a module: ``run`` notices every switch between training and evaluation mode."""

    def __init__(self, module: nn.Module, run: Noticing) -> None:
        self.module = module
        self.run = run

    def __call__(self, mode: bool = True) -> nn.Module:
        """As ``nn.Module.train``."""
        self.run.notice()
        return type(self.module).train(self.module, mode)


def stands_down(wiring: Wiring, x: Tensor) -> bool:
    """Must gate, activation and ``up`` each do their own work?"""
    return wiring.in_training() or not is_dense(x) or wiring.change() is not None


def is_dense(x: Tensor) -> bool:
    """Is this a tensor that a block may answer for, and no subclass, symbol, sparse or nested one?"""
    # the type last: a symbol of torch.fx has to raise here, since what it stands for cannot be told
    return not x.is_nested and x.layout is torch.strided and type(x) is Tensor
