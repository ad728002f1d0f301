"""One hidden layer of a real network, whatever library it comes from, as the theorems see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.find import find
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import DataError
from lazyneuron.learn.checks import finite_array
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.ops.array import Array

Rows = Callable[[Array], Array]  # of a row of inputs a row of outputs, many at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class HiddenLayer:
    """A hidden layer.

    Attributes:
        name: where it stands.
        majorant: the ReLU network with outer weights ``|u_j|``, the lengths of the output directions: its sensitivity
            bounds hold for the vector-valued layer too, if that is one of ReLUs.
        function: the layer itself, from rows to outputs (m, o) without its last bias.
        rows: inputs that it received, or None.
        misfit: why the theorems do not speak about it, or None.
    """

    name: str
    majorant: SparseActivationNet
    function: Rows
    rows: Array | None
    misfit: str | None = None


def of_network(net: SparseActivationNet, x: object) -> HiddenLayer:
    """A network of the class."""
    rows = None if x is None else finite_array(x, "X", ndim=2)
    return HiddenLayer(name="network", majorant=net, function=lambda z: net(z)[:, None], rows=rows)


def of_scikit(model: Any, x: object) -> list[HiddenLayer]:
    """The hidden layers of a scikit-learn MLP; all but the first receive what the one before computes.

    Raises:
        DataError: its activation is none of scikit-learn's.
    """
    rows = None if x is None else finite_array(x, "X", ndim=2)
    if model.activation not in _SCIKIT:
        raise DataError(
            f"An MLP with the activation {model.activation!r} cannot be audited; known are {', '.join(_SCIKIT)}."
        )
    act = _SCIKIT[model.activation]
    misfit = (
        None if model.activation == "relu" else f"Its activation is {model.activation}; the theorems are about ReLU."
    )
    found = []
    for number, (up, bias) in enumerate(zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True)):
        down = model.coefs_[number + 1]
        hidden = _plain(up.T, bias, act)
        found.append(_layer(f"hidden layer {number}", up.T, bias, down.T, hidden=hidden, rows=rows, misfit=misfit))
        if rows is not None:
            rows = hidden(rows)
    return found


def of_torch(
    model: nn.Module, x: Any, *, blocks: Sequence[MLPBlock] | None, tokens: int, seed: int
) -> list[HiddenLayer]:
    """The MLP blocks of a torch model, with the inputs that they receive from the batches ``x``."""
    chosen = list(blocks) if blocks is not None else list(find(model).or_raise().blocks)
    seen = {} if x is None else _inputs(model, chosen, x, tokens=tokens, seed=seed)
    found = []
    for block in chosen:
        hidden = _plain(_numbers(block.first.weight), _bias(block.first), _called(block))
        if block.gate is not None:
            hidden = _product(hidden, block)
        found.append(
            _layer(
                block.name,
                _numbers(block.first.weight),
                _bias(block.first),
                _numbers(block.down.weight),
                hidden=hidden,
                rows=seen.get(block.name),
                misfit=_misfit(block),
            )
        )
    return found


def _misfit(block: MLPBlock) -> str | None:
    if any(site.adapted for site in block.linears):
        return "An adapter is attached, and only the weights below it are read; merge it first."
    if block.gate is not None:
        return "It is gated, a product of two layers; the theorems are about sums of ReLUs."
    if block.activation.kind != "relu":
        return f"Its activation is {block.activation.kind}; the theorems are about ReLU."
    return None


def _called(block: MLPBlock) -> Rows:
    """The block's activation function; one that we only call may hold weights, so it is called in their dtype."""
    dtype = block.up.weight.dtype if block.activation.kind == "other" else torch.float64

    def act(z: Array) -> Array:
        with torch.no_grad():
            given = torch.from_numpy(z).to(block.up.weight.device, dtype)
            return _numbers(block.activation(given))

    return act


def _product(gated: Rows, block: MLPBlock) -> Rows:
    up = _plain(_numbers(block.up.weight), _bias(block.up), _relu if block.rectifies_up else _same)
    return lambda x: gated(x) * up(x)


def _plain(weight: Array, bias: Array, act: Rows) -> Rows:
    return lambda x: act(x @ weight.T + bias)


def _layer(
    name: str, up: Array, bias: Array, down: Array, *, hidden: Rows, rows: Array | None, misfit: str | None
) -> HiddenLayer:
    majorant = SparseActivationNet(up, -bias, np.linalg.norm(down, axis=0))
    return HiddenLayer(
        name=name, majorant=majorant, function=lambda x: np.asarray(hidden(x) @ down.T), rows=rows, misfit=misfit
    )


def _bias(site: LinearSite) -> Array:
    return np.zeros(len(site.weight)) if site.bias is None else _numbers(site.bias)


def _relu(z: Array) -> Array:
    return np.asarray(np.maximum(z, 0))


def _same(z: Array) -> Array:
    return z


def _logistic(z: Array) -> Array:
    return np.asarray((1 + np.tanh(z / 2)) / 2)


_SCIKIT: dict[str, Rows] = {"identity": _same, "logistic": _logistic, "tanh": np.tanh, "relu": _relu}


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

        handles.append(block.first.module.register_forward_pre_hook(hook))
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
