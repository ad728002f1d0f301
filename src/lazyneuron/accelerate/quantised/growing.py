"""Calls with a growing cache, under ``torch.compile``: they run as they do without it.

Of such a call compilers can make nothing faster: products, norms and attention are operators already, and a graph
copies keys and values that the operators extend in place, and checks every one of them before it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from lazyneuron.accelerate.quantised.stack import call_of_a_model
from lazyneuron.blocks.splice.override import Override
from lazyneuron.core.undo import Transaction


class ModelForward(Override):
    """Stands for the forward of a model that generates: with a growing cache, it runs outside of compiled graphs."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._bind()

    def _bind(self) -> None:
        self._kinds = growing_kinds()

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own forward."""
        if torch.compiler.is_compiling() and is_left_out(kwargs, self._kinds):
            from lazyneuron.accelerate.quantised import uncompiled

            return uncompiled.run(self, args, kwargs)
        if torch.compiler.is_compiling():
            return type(self.module).forward(self.module, *args, **kwargs)
        with call_of_a_model():
            return type(self.module).forward(self.module, *args, **kwargs)


def growing_kinds() -> tuple[Any, Any]:
    """transformers' cache that grows, and its pair of caches of a decoder that attends to an encoder."""
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    return DynamicCache, EncoderDecoderCache


def is_left_out(kwargs: Mapping[str, Any], kinds: tuple[Any, Any]) -> bool:
    """Asked while a call is compiled: does it run outside of graphs?

    Calls without a cache or with a static one are compiled as ever, and so are all where ``fullgraph=True`` or
    ``torch.export`` leaves no other way.

    Args:
        kwargs: of the call.
        kinds: what :func:`growing_kinds` gives, looked up before.
    """
    if not torch.compiler.is_dynamo_compiling() or torch.compiler.is_exporting():
        return False
    cache: Any = kwargs.get("past_key_values")
    if type(cache) is kinds[1]:
        cache = cache.self_attention_cache
    if type(cache) is not kinds[0]:
        return False
    from lazyneuron.accelerate.quantised import uncompiled  # only now: it imports the compiler

    return not uncompiled.is_one_graph()


def leave_growing_caches_out_(change: Transaction, model: nn.Module, layers: Iterable[str]) -> None:
    """Keep calls with a growing cache out of compiled graphs, whichever part of the model is compiled.

    Args:
        change: the open transaction.
        model: changed in place, if its forward takes a cache.
        layers: names of decoder layers, which see to it themselves.
    """
    above = {""} | {name[:k] for name in layers for k, sign in enumerate(name) if sign == "."}
    for name in sorted(above):
        module = model.get_submodule(name)
        if "past_key_values" in inspect.signature(type(module).forward).parameters:
            change.set(module, "forward", ModelForward(module))
