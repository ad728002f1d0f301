"""The degree spectrum of a regression function from samples alone, without learning it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lazyneuron.core.arguments import check_switch
from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.learn.checks import finite_array
from lazyneuron.learn.krawtchouk import krawtchouk_table
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.operators import Impl, pair_sums
from lazyneuron.ops.boolean.subsets import check_degree


@dataclasses.dataclass(frozen=True, kw_only=True)
class DegreeWeights:
    """Estimated weights by degree.

    Attributes:
        weights: ``W^t`` for t = 0..max_degree; unbiased when labels were not centred, may be negative.
        standard_error: of each, with the unknown ``E[y^2 (level t)^2]`` replaced by ``E[y^2] W^t``.
        unresolved: variance of the labels minus the levels from 1 up: higher degrees and noise together.
        variance: of the labels.
        centred: whether the mean was taken out; level 0 is its square then.
    """

    weights: Array
    standard_error: Array
    unresolved: float
    variance: float
    centred: bool


def degree_weights_from_samples(
    x: Array, y: object, *, max_degree: int, center: bool = True, impl: Impl = "auto"
) -> DegreeWeights:
    """``W^t = 1 / (m (m - 1)) sum over a != b of y_a y_b Kr_t(Hamming distance)`` for all t up to a degree.

    Detecting level t takes about ``sqrt(C(n, t))`` samples, far fewer than the ``C(n, t)`` that learning it takes.
    Levels are not summed to an average sensitivity: its variance would explode.

    Args:
        x: rows of +-1, shape (m, n), uniform on the cube.
        y: labels, shape (m,).
        max_degree: the highest level.
        center: take the mean of the labels out first, which lowers the variance and costs a bias of order 1/m.
        impl: which implementation.

    Raises:
        ShapeError: rows and labels differ in number, or in their axes.
        DataError: there are fewer than 2 rows, or a label is not finite.
        ConfigError: the degree is out of range.

    Holds:
        Unbiased without centring; variance at most ``4 E[y^2 h_t(x)^2] / m + 2 C(n, t) E[y^4] / (m (m - 1))``.

    Cost: ``m^2 n / 128`` popcounts.

    Source: ours, D9 (proof in the documentation), not peer reviewed.
    """
    labels, x = finite_array(y, "y", ndim=1), np.asarray(x)
    check_switch("center", center)
    if x.ndim != 2:
        raise ShapeError(f"Rows have two axes, got {x.ndim}; reshape them.")
    m, n = x.shape
    max_degree = check_degree(n, max_degree)
    if m != len(labels):
        raise ShapeError(f"There must be one label for each row, got {m} rows and {len(labels)} labels.")
    if m < 2:
        raise DataError(f"Weights by degree need at least 2 samples, got {m}.")
    mean = float(labels.mean())
    used = labels - mean if center else labels
    table = krawtchouk_table(n, max_degree)
    weights = table @ pair_sums(x, used, impl=impl) * (2 / (m * (m - 1)))
    if center:
        weights[0] = mean**2
    second, fourth = float(np.mean(used**2)), float(np.mean(used**4))
    choose = np.array([float(math.comb(n, t)) for t in range(max_degree + 1)])
    variance = 4 * second * np.maximum(weights, 0) / m + 2 * choose * fourth / (m * (m - 1))
    spread = float(labels.var())
    return DegreeWeights(
        weights=weights,
        standard_error=np.sqrt(variance),
        unresolved=spread - float(weights[1:].sum()),
        variance=spread,
        centred=center,
    )
