"""Putting the doubly biased recipe's modules into a block, and keeping track of them for the projection."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import ShapeError
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.activations.jsrelu import JSReLU
from lazyneuron.induce.modules.norm_floor import NormFloor
from lazyneuron.induce.modules.zeroth_bias import ZerothBias

INSTALLED = "_lazyneuron_installed"
CHILD = "zeroth_bias"
_DEFAULT_LENGTH = 512


@dataclasses.dataclass(frozen=True)
class Installed:
    """What one block got; held in the model's ``__dict__``, so that a deepcopy points into the copy."""

    block: str
    norm: nn.Module | None
    bias: ZerothBias | None
    floor: NormFloor | None
    ramped: JSReLU | None
    mixing_steps: int
    scale_offset: float


def length_of(model: nn.Module, max_len: int | None) -> int:
    """Number of positions: what is asked for, what the model's config says, or 512."""
    if max_len is not None:
        return max_len
    own = getattr(model, "config", None)
    for name in ("max_position_embeddings", "n_positions"):
        value = getattr(own, name, None)
        if isinstance(value, int) and value > 0:
            return value
    image, patch = getattr(own, "image_size", None), getattr(own, "patch_size", None)
    if isinstance(image, int) and isinstance(patch, int):
        return (image // patch) ** 2 + 2  # class and distillation token
    return _DEFAULT_LENGTH


def entrances(block: MLPBlock, model: nn.Module) -> tuple[nn.Module, ...]:
    """The modules whose first argument is the block's input: its container, a part around ``up``, or its layers."""
    if block.container is not None:
        return (model.get_submodule(block.container),)
    if block.gate is not None:
        return tuple(dict.fromkeys((block.gate.module, block.up.module)))
    owner = model.get_submodule(block.up.name.rpartition(".")[0])
    inside = set(owner.modules())
    around = block.down.module not in inside and sum(isinstance(m, type(block.up.module)) for m in inside) == 1
    return (owner if around else block.up.module,)


def add_bias_(change: Transaction, block: MLPBlock, norm: nn.Module, bias: ZerothBias) -> None:
    """Add a zeroth bias to what enters or leaves a block; it becomes a child of the norm."""
    model = change.model
    bias.training = norm.training
    change.set(norm, CHILD, bias)
    if bias.position == "input":
        for entrance in entrances(block, model):
            add_hook_(change, entrance, _Before(bias))
    else:
        add_after_(change, leaving(block, model), _After(bias))


def leaving(block: MLPBlock, model: nn.Module) -> nn.Module:
    """The module that returns the block's output."""
    return block.down.module if block.container is None else model.get_submodule(block.container)


def add_after_(change: Transaction, module: nn.Module, hook: Callable[..., Any]) -> None:
    """Call a hook with arguments, keyword arguments and output after a module, until the change is restored."""
    for name in ("_forward_hooks", "_forward_hooks_with_kwargs"):
        change.set(module, name, OrderedDict(getattr(module, name)))
    module.register_forward_hook(hook, with_kwargs=True)


def add_hook_(change: Transaction, module: nn.Module, hook: Callable[..., Any]) -> None:
    """Call a hook with positional and keyword arguments before a module, until the change is restored."""
    for name in ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
        change.set(module, name, OrderedDict(getattr(module, name)))
    module.register_forward_pre_hook(hook, with_kwargs=True)


def first_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The first argument of a call, given by position or by name."""
    return args[0] if args else next(iter(kwargs.values()))


def with_first(args: tuple[Any, ...], kwargs: Mapping[str, Any], value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with another first one."""
    if args:
        return (value, *args[1:]), dict(kwargs)
    return (), {**kwargs, next(iter(kwargs)): value}


class _Before:
    """Adds the bias to the first argument, by position or by name."""

    def __init__(self, bias: ZerothBias) -> None:
        self._bias = bias

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return with_first(args, kwargs, _biased(self._bias, first_of(args, kwargs)))


class _After:
    """Adds the bias to what the module returns."""

    def __init__(self, bias: ZerothBias) -> None:
        self._bias = bias

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> Tensor:
        return _biased(self._bias, output)


def _biased(bias: ZerothBias, x: Tensor) -> Tensor:
    if bias.per_position and x.ndim != 3:
        raise ShapeError(
            f"A bias for each position needs tokens of shape (batch, tokens, width), got {tuple(x.shape)}; "
            "pass a batch, or use per_position=False."
        )
    value: Tensor = bias(x)
    return value


def refuse_cache(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """A root hook: with a filled cache the first token of a call is not at position 0.

    Raises:
        ShapeError: the call continues a cached one.
    """
    cache = kwargs.get("past_key_values")
    length = getattr(cache, "get_seq_length", None)
    if cache is not None and (length() if callable(length) else 1) > 0:
        raise ShapeError(
            "A bias for each position counts the tokens of a call from 0, but this call continues a cached one; "
            "pass use_cache=False, or use per_position=False."
        )
