"""A decoder layer as one operator of a compiled graph, for models that are compiled in one piece."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from lazyneuron.accelerate.execution.enlisted import Enlisted

Step = tuple[Tensor, Tensor, Tensor]


class Layer(Protocol):
    """What the operator runs."""

    def again(self, x: Tensor, angles: tuple[Tensor, Tensor], keys: Tensor, values: Tensor) -> Step:
        """The layer's output, and keys and values in new memory."""


layers: Enlisted[Layer] = Enlisted()


@functools.cache
def op() -> Callable[..., Step]:
    """The operator ``lazyneuron::decoder_layer(x, cos, sin, keys, values, number)``, registered on first use.

    It is a whole layer, which ``torch.compile`` neither traces into nor guards: what may have changed is looked at when
    it runs, as in eager mode. Returned are the layer's output and its keys and values with one token more.
    """
    run = torch.library.custom_op("lazyneuron::decoder_layer", _run, mutates_args=())
    run.register_fake(_fake)
    call: Callable[..., Step] = torch.ops.lazyneuron.decoder_layer.default
    return call


def _run(
    x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    return layers.of(number).again(x, (cos, sin), keys, values)


def _fake(
    x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, tokens, width = keys.shape
    longer = (batch, heads, tokens + 1, width)
    return torch.empty_like(x), keys.new_empty(longer), values.new_empty(longer)
