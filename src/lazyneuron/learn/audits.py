"""What the theory says about a trained network, and whether that is anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import DataError
from lazyneuron.core.numbers import whole
from lazyneuron.learn import cube
from lazyneuron.learn.audit_report import RELATIVE, AuditReport, LayerAudit
from lazyneuron.learn.checks import count, probability
from lazyneuron.learn.hidden_layer import HiddenLayer, of_network, of_scikit, of_torch
from lazyneuron.learn.instances.instance import Instance
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.learn.queries import Estimate, mean_estimate
from lazyneuron.learn.sensitivity import sensitivity_bounds
from lazyneuron.learn.sparsity import verify_sparsity
from lazyneuron.ops.array import Array


def audit(
    model: Any,
    x: Any = None,
    *,
    blocks: Sequence[MLPBlock] | None = None,
    samples: int = 4000,
    seed: int = 0,
    delta: float = 0.05,
) -> AuditReport:
    """Report sparsity, sensitivity bounds and what follows from them for every hidden layer of a model.

    Args:
        model: a :class:`SparseActivationNet`, an instance, a fitted scikit-learn ``MLPRegressor`` or
            ``MLPClassifier``, a fitted :class:`SparseReluRegressor`, or a torch module with MLP blocks.
        x: rows (m, n); for a torch model its batches. Optional.
        blocks: of a torch model; all by default.
        samples: rows of data kept for each layer, and random points of the cube.
        seed: of both.
        delta: failure probability of each interval.

    Returns:
        The report. Fourier statements are about inputs uniform on the cube (or independent ones, with the constants
        of D5), whatever the data are, and the report says so.

    Raises:
        ConfigError: a number is out of range.
        DataError: the model is nothing that can be audited, or a block did not run on the data.
        NoBlocksError: a torch model has no MLP block.

    Source: ours, D1 to D3, not peer reviewed.
    """
    samples, delta = count(samples, "The number of samples", least=2), probability(delta, "delta")
    seed = whole(seed, "A seed", least=0)
    layers = _layers(model, x, blocks=blocks, samples=samples, seed=seed)
    return AuditReport(layers=tuple(_audit(a, samples=samples, seed=seed, delta=delta) for a in layers), seed=seed)


def _layers(model: Any, x: Any, *, blocks: Sequence[MLPBlock] | None, samples: int, seed: int) -> list[HiddenLayer]:
    if isinstance(model, Instance):
        return [of_network(model.net, x)]
    if isinstance(model, SparseActivationNet):
        return [of_network(model, x)]
    if isinstance(model, nn.Module):
        return of_torch(model, x, blocks=blocks, tokens=samples, seed=seed)
    if isinstance(getattr(model, "net_", None), SparseActivationNet):
        return [of_network(model.net_, x)]
    if hasattr(model, "coefs_") and hasattr(model, "intercepts_"):
        return of_scikit(model, x)
    raise DataError(
        f"A {type(model).__name__} cannot be audited; pass a SparseActivationNet, a fitted scikit-learn MLP or "
        "a torch module."
    )


def _audit(layer: HiddenLayer, *, samples: int, seed: int, delta: float) -> LayerAudit:
    net = layer.majorant
    norm, bias = net.norms()
    on_cube = sensitivity_bounds(net, samples=samples, seed=seed, delta=delta)
    sensitivity, variance = _queries(layer, samples=samples, seed=seed, delta=delta)
    on_data = None if layer.rows is None else verify_sparsity(net, layer.rows)
    path_norm = None
    if on_data is not None and layer.rows is not None:
        radius = float(np.linalg.norm(layer.rows, axis=1).max())
        path_norm = radius * float(np.sqrt(on_data.active_share) @ np.linalg.norm(net.rebalance()[0], axis=1))
    certified = on_cube.least if layer.misfit is None else math.inf
    vacuous = not certified < net.n * variance.low  # so that NaN, which compares as false, is vacuous too
    degree = None if vacuous else min(max(math.ceil(certified / (RELATIVE * variance.value)) - 1, 0), net.n)
    return LayerAudit(
        name=layer.name,
        n=net.n,
        s=net.s,
        norm=norm,
        bias=bias,
        on_data=on_data,
        path_norm=path_norm,
        on_cube=on_cube,
        sensitivity=sensitivity,
        variance=variance.value,
        least_variance=variance.low,
        certified=certified,
        degree=degree,
        vacuous=vacuous,
        misfit=layer.misfit,
    )


def _queries(layer: HiddenLayer, *, samples: int, seed: int, delta: float) -> tuple[Estimate, Estimate]:
    """AS and variance of the layer itself under uniform inputs, summed over outputs."""
    n = layer.majorant.n
    x, flipped = cube.random_neighbours(samples, n, generator=np.random.default_rng(seed))
    at, after = (_in_blocks(layer, points.astype(np.float64)) for points in (x, flipped))
    values = n / 4 * ((at - after) ** 2).sum(axis=1)
    squares = ((at - at.mean(axis=0)) ** 2).sum(axis=1)
    return (
        mean_estimate(values, delta=delta, span=None, queries=2 * samples),
        mean_estimate(squares, delta=delta, span=None, queries=samples),
    )


def _in_blocks(layer: HiddenLayer, x: Array) -> Array:
    return np.concatenate([layer.function(x[b : b + 1024]) for b in range(0, len(x), 1024)])
