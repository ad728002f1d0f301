"""One hidden layer of a real network, whatever library it comes from, as the theorems see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import find
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import DataError
from lazyneuron.learn.array import Array, finite_array
from lazyneuron.learn.network import SparseActivationNet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A hidden layer.

    Attributes:
        name: where it stands.
        majorant: the network with outer weights ``|u_j|``, the lengths of the output directions: its certificates
        hold for
            the vector-valued layer too.
        function: the layer itself, from rows to outputs (m, o) without its last bias.
        rows: inputs that it received, or None.
        misfit: why the theorems do not speak about it, or None.
    """

    name: str
    majorant: SparseActivationNet
    function: Callable[[Array], Array]
    rows: Array | None
    misfit: str | None = None


def of_network(net: SparseActivationNet, x: object) -> Layer:
    """A network of the class."""
    rows = None if x is None else finite_array(x, "X", ndim=2)
    return Layer(name="network", majorant=net, function=lambda z: net(z)[:, None], rows=rows)


def of_scikit(model: Any, x: object) -> list[Layer]:
    """The hidden layers of a scikit-learn MLP; all but the first receive what the one before computes."""
    rows = None if x is None else finite_array(x, "X", ndim=2)
    found = []
    for number, (up, bias) in enumerate(zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True)):
        relu = model.activation == "relu"
        misfit = None if relu else f"Its activation is {model.activation}; the theorems are about ReLU."
        down = model.coefs_[number + 1]
        found.append(_layer(f"hidden layer {number}", up.T, bias, down.T, rows=rows, misfit=misfit))
        if rows is not None:
            rows = np.maximum(rows @ up + bias, 0)
    return found


def of_torch(model: nn.Module, x: Any, *, blocks: Sequence[MLPBlock] | None, tokens: int, seed: int) -> list[Layer]:
    """The MLP blocks of a torch model, with the inputs that they receive from the batches ``x``."""
    chosen = list(blocks) if blocks is not None else list(find(model).or_raise().blocks)
    seen = {} if x is None else _inputs(model, chosen, x, tokens=tokens, seed=seed)
    found = []
    for block in chosen:
        up, down = block.switch, block.down.weight
        misfit = None
        if block.gate is not None:
            misfit = "It is gated, a product of two layers; the theorems are about sums of ReLUs."
        elif block.activation.kind != "relu":
            misfit = f"Its activation is {block.activation.kind}; the theorems are about ReLU."
        bias = np.zeros(block.d_hidden) if up.bias is None else _numbers(up.bias)
        rows = seen.get(block.name)
        found.append(_layer(block.name, _numbers(up.weight), bias, _numbers(down), rows=rows, misfit=misfit))
    return found


def _layer(name: str, up: Array, bias: Array, down: Array, *, rows: Array | None, misfit: str | None) -> Layer:
    majorant = SparseActivationNet(up, -bias, np.linalg.norm(down, axis=0))

    def function(x: Array) -> Array:
        return np.asarray(np.maximum(x @ up.T + bias, 0) @ down.T)

    return Layer(name=name, majorant=majorant, function=function, rows=rows, misfit=misfit)


def _numbers(tensor: Tensor) -> Array:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _inputs(
    model: nn.Module, blocks: Sequence[MLPBlock], batches: Iterable[Any], *, tokens: int, seed: int
) -> dict[str, Array]:
    """Up to ``tokens`` rows that each block's first layer receives; the model is left as it was."""
    kept: dict[str, list[Tensor]] = {block.name: [] for block in blocks}
    handles = []
    for block in blocks:

        def hook(_: nn.Module, inputs: tuple[Any, ...], into: list[Tensor] = kept[block.name]) -> None:
            into.append(inputs[0].detach().reshape(-1, inputs[0].shape[-1]).to("cpu", torch.float64))

        handles.append(block.switch.module.register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            for batch in [batches] if isinstance(batches, Tensor) else batches:
                call_model(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    generator = np.random.default_rng(seed)
    out = {}
    for name, parts in kept.items():
        if not parts:
            raise DataError(f"Block {name} did not run on the data; pass batches that reach it.")
        rows = torch.cat(parts).numpy()
        out[name] = rows[generator.permutation(len(rows))[:tokens]]
    return out
