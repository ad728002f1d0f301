"""Known systems as data-dependent sparse models, one constructor each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyneuron.core.errors import AssumptionError, ShapeError
from lazyneuron.route.hash_routers import EuclideanLSH, HyperplaneLSH, RandomHash
from lazyneuron.route.layers import DSM
from lazyneuron.route.score_routers import GlobalGates, NearestNeighbours, ScalingBlocks, Switch, TopK


def _pairs(points: Tensor, values: Tensor) -> Tensor:
    if points.ndim != 2 or len(points) < 1 or values.shape[:1] != points.shape[:1]:
        raise ShapeError(
            f"Points of shape (t, features) and as many values are needed, got {tuple(points.shape)} and "
            f"{tuple(values.shape)}."
        )
    return values.reshape(len(values), -1).to(points.dtype)


def interpolation(points: Tensor, values: Tensor) -> DSM:
    """Exact at t points: s = 1, ``mask(x_i) = e_i``, ``A_i = f(x_i) / <b_i, x_i>`` with ``b_i = x_i``.

    Args:
        points: (t, features), all different and none zero.
        values: (t,) or (t, outputs).

    Returns:
        The model, exact at the points up to the rounding of one product and one division.

    Raises:
        AssumptionError: a point is zero, for which the construction divides by zero, or occurs twice, or is so short or
            long that its square is no ordinary number of its dtype.
    """
    outputs = _pairs(points, values)
    norms = points.double().square().sum(-1)
    if bool((norms == 0).any()) or len(torch.unique(points, dim=0)) < len(points):
        raise AssumptionError("Interpolation needs points that are all different and not zero; move the data first.")
    kind = torch.finfo(points.dtype)
    top = outputs.double() / norms[:, None]
    if bool((norms < kind.tiny).any()) or max(float(norms.max()), float(top.abs().max())) > kind.max:
        raise AssumptionError(
            f"Interpolation multiplies by f(x) / |x|^2, beyond the range of {points.dtype} for lengths from "
            f"{float(norms.min()) ** 0.5:.3g} to {float(norms.max()) ** 0.5:.3g}; scale the points or take float64."
        )
    router = NearestNeighbours(points, active=1)
    return DSM(router, top.to(points.dtype).t(), bottom=points, activation="identity")


def nearest_neighbour_regression(points: Tensor, values: Tensor, *, neighbours: int) -> DSM:
    """The mean value of the ``neighbours`` nearest stored points: rows of B are the data, ``A = f(b) / k``.

    Args:
        points: (t, features) unit vectors.
        values: (t,) or (t, outputs).
        neighbours: k.

    Raises:
        AssumptionError: the points are not of unit length, so that the largest inner product is not the nearest.
    """
    outputs = _pairs(points, values)
    if not torch.allclose(points.norm(dim=-1), torch.ones((), dtype=points.dtype), atol=1e-4):
        raise AssumptionError("The construction needs unit vectors; normalise the points and the inputs.")
    # the same order as by inner products, which round close neighbours to one number
    router = NearestNeighbours(points, active=neighbours)
    return DSM(router, (outputs / neighbours).t(), activation="one")


def switch_layer(routing: Tensor, bottom: Tensor, top: Tensor, *, gated: bool = True, activation: str = "relu") -> DSM:
    """A Switch layer: L experts of s units, the one with the largest logit computes.

    Args:
        routing: (L, features).
        bottom: (L, s, features), first layers of the experts.
        top: (L, outputs, s), second layers.
        gated: multiply by the routing probability.
        activation: between the two.
    """
    experts, units, features = bottom.shape
    router = Switch(features, experts, expert_units=units, gated=gated)
    router.weight.data = routing.clone()
    return DSM(
        router, top.permute(1, 0, 2).flatten(1), bottom=bottom.flatten(0, 1), activation=activation, train_bottom=True
    )


def scaling_layer(scores: Tensor, bottom: Tensor, top: Tensor, *, blocks: int, activation: str = "relu") -> DSM:
    """A layer of the Scaling transformer: in each of s blocks of t/s units, the best-scored unit computes.

    Args:
        scores: (t, features), the controller.
        bottom: (t, features).
        top: (outputs, t).
        blocks: s.
        activation: of the units.
    """
    router = ScalingBlocks(bottom.shape[1], bottom.shape[0], blocks=blocks)
    router.weight.data = scores.clone()
    return DSM(router, top, bottom=bottom, activation=activation, train_bottom=True)


def lsh_model(features: int, *, bits: int, tables: int = 1, outputs: int = 1, seed: int = 0) -> DSM:
    """LSH(d, s, m, 0): s tables of 2^m buckets with a constant each, starting at 0; width s 2^m, s-sparse."""
    router = HyperplaneLSH(features, bits, tables=tables, seed=seed)
    return DSM(router, torch.zeros(outputs, router.width), activation="one")


def euclidean_lsh_model(
    features: int, *, bucket_width: float, capacity: int, tables: int = 1, outputs: int = 1, seed: int = 0
) -> DSM:
    """The same with Euclidean hashes, whose buckets get units as they are seen in training mode."""
    router = EuclideanLSH(features, bucket_width, tables=tables, capacity=capacity, seed=seed)
    return DSM(router, torch.zeros(outputs, router.width), activation="one")


def random_hash_layer(
    features: int, width: int, *, active: int, outputs: int = 1, activation: str = "relu", seed: int = 0
) -> DSM:
    """Random frozen bottom layer, trainable top layer, units by a hash that knows no nearness."""
    bottom = _random_bottom(features, width, seed)
    return DSM(
        RandomHash(features, width, active=active, seed=seed),
        torch.zeros(outputs, width),
        bottom=bottom,
        activation=activation,
    )


def top_k_layer(
    features: int, width: int, *, active: int, outputs: int = 1, activation: str = "relu", seed: int = 0
) -> DSM:
    """Random frozen bottom layer, trainable top layer, the units with the largest pre-activations."""
    bottom = _random_bottom(features, width, seed)
    router = TopK(features, width, active=active, bottom=bottom)
    return DSM(router, torch.zeros(outputs, width), bottom=bottom, activation=activation)


def gated_layer(gates: GlobalGates, bottom: Tensor, top: Tensor, *, activation: str = "relu") -> DSM:
    """A layer whose units are switched by globally shared gates; stack several with the same ``gates``."""
    return DSM(gates, top, bottom=bottom, activation=activation)


def _random_bottom(features: int, width: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(width, features, generator=g) / math.sqrt(features)
