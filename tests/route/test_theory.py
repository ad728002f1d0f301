"""Bounds worked by hand, targets against their definitions, and exponents against measurements."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lazyneuron.core.errors import AssumptionError, ConfigError
from lazyneuron.route.affine_hash import random_hash
from lazyneuron.route.bucket_regression import BucketRegression
from lazyneuron.route.bucket_settings import BucketSettings
from lazyneuron.route.exponents import fit_exponent, predicted_slope
from lazyneuron.route.table import BucketTable
from lazyneuron.route.targets import (
    HypercubeFunction,
    on_manifold,
    on_subspace,
    random_grid_function,
    random_hypercube_function,
    random_polynomial,
)
from lazyneuron.route.theory import (
    dense_forward_flops,
    dense_samples,
    dense_width,
    lsh_forward_flops,
    lsh_samples,
    lsh_table_size,
    nonempty_buckets,
)

SIZES = {"lipschitz": 2.0, "features": 9, "dimension": 3, "error": 0.5}


def test_bounds_worked_by_hand() -> None:
    # L sqrt(d) / eps = 2 * 3 / 0.5 = 12
    assert lsh_table_size(**SIZES).value == pytest.approx(12**3)
    assert lsh_samples(**SIZES).value == pytest.approx(12**3 * 3 * math.log(12))
    assert lsh_forward_flops(**SIZES).value == pytest.approx(9 * 3 * math.log(12))
    assert dense_width(**SIZES, constant=2.0).value == pytest.approx(6**3)
    assert dense_samples(**SIZES, constant=2.0).value == pytest.approx(6**3 * 3 * math.log(12))
    assert dense_forward_flops(**SIZES, constant=2.0).value == pytest.approx(9 * 12**3)
    assert nonempty_buckets(features=9, dimension=3, width=0.5).value == pytest.approx(12**3)
    assert lsh_table_size(**SIZES, constant=5.0).value == pytest.approx(5 * 12**3)
    for bound in (lsh_table_size(**SIZES), dense_width(**SIZES)):
        assert bound.order_only and bound.assumptions and "2208.04461" in bound.source
    assert lsh_table_size(**SIZES).failure_probability == 0.2
    assert nonempty_buckets(features=9, dimension=3, width=0.5).failure_probability == 0.1
    assert nonempty_buckets(features=9, dimension=3, width=0.5, constant=2.0).value == pytest.approx(12**6)
    assert nonempty_buckets(features=9, dimension=3, width=0.5, constant=1e3).value == math.inf
    assert math.isnan(dense_width(**SIZES).failure_probability)  # the paper does not say
    assert lsh_table_size(lipschitz=1e9, features=10**6, dimension=10**4, error=1e-9).value == math.inf


@pytest.mark.parametrize(
    "bound", [lsh_table_size, lsh_samples, lsh_forward_flops, dense_width, dense_samples, dense_forward_flops]
)
def test_bounds_are_monotone(bound) -> None:  # type: ignore[no-untyped-def]
    errors = [bound(**{**SIZES, "error": e}).value for e in (0.1, 0.2, 0.4, 0.8)]
    assert errors == sorted(errors, reverse=True)
    dimensions = [bound(**{**SIZES, "dimension": k}).value for k in (1, 2, 5, 9)]
    assert dimensions == sorted(dimensions)


def test_the_gap_at_inference_is_a_power_of_the_error() -> None:
    # halving the error in k = 3 dimensions costs a dense model a factor of 8, an LSH model log 24 / log 12
    half = {**SIZES, "error": 0.25}
    assert dense_forward_flops(**half).value / dense_forward_flops(**SIZES).value == pytest.approx(8)
    grown = lsh_forward_flops(**half).value / lsh_forward_flops(**SIZES).value
    assert grown == pytest.approx(math.log(24) / math.log(12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lipschitz": 0.0}, "Lipschitz constant is positive"),
        ({"dimension": 10}, "1 to the number of features \\(9\\), got 10"),
        ({"dimension": 0}, "got 0"),
        ({"error": 0.0}, "error lies between"),
        ({"error": 7.0}, "error lies between"),
        ({"constant": 0.0}, "constant is positive"),
        ({"features": 0}, "at least one feature"),
        ({"error": 6.0}, "error lies between"),
    ],
)
def test_arguments_outside_the_theorem(change, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AssumptionError, match=message):
        lsh_table_size(**{**SIZES, **change})


@pytest.mark.parametrize("bound", [dense_width, dense_samples, dense_forward_flops])
def test_a_lower_bound_below_one_unit_is_refused(bound) -> None:  # type: ignore[no-untyped-def]
    assert bound(**SIZES, constant=11.99).value >= 1
    for constant in (12.0, 100.0):  # samples were negative from 24 on
        with pytest.raises(AssumptionError, match=r"below lipschitz .* = 12, above which one unit is enough"):
            bound(**SIZES, constant=constant)


def test_buckets_wider_than_the_cube_are_refused_as_such() -> None:
    with pytest.raises(AssumptionError, match="The width lies below 2 sqrt"):
        nonempty_buckets(features=9, dimension=3, width=100.0)
    assert nonempty_buckets(features=9, dimension=3, width=5.99).value >= 1


def test_the_power_law_is_least_squares() -> None:
    buckets = [10.0, 100.0, 1000.0]
    fit = fit_exponent(buckets, [3 * b**-0.4 for b in buckets], predicted=-0.5)
    assert (fit.slope, fit.factor) == (pytest.approx(-0.4), pytest.approx(3.0))
    assert fit.residual == pytest.approx(0, abs=1e-12) and fit.predicted == -0.5
    for bad in (([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 1.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(AssumptionError):
            fit_exponent(*bad, predicted=-1.0)
    assert predicted_slope(dimension=4, degree=1) == -0.5
    with pytest.raises(AssumptionError):
        predicted_slope(dimension=2, degree=-1)


def test_the_polynomial_term_by_term() -> None:
    f = random_polynomial(3, degree=4, seed=1)
    assert len(f.coefficients) == math.comb(7, 3) and float(f.coefficients.abs().sum()) == pytest.approx(0.99)
    assert len({tuple(e) for e in f.exponents.tolist()}) == len(f.exponents) and int(f.exponents.sum(1).max()) == 4
    x = 2 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    for row, value in zip(x.tolist(), f(x).tolist(), strict=True):
        want = sum(
            c * math.prod(v**a for v, a in zip(row, e, strict=True))
            for e, c in zip(f.exponents.tolist(), f.coefficients.tolist(), strict=True)
        )
        assert value == pytest.approx(want)
    gap = (f(x) - f(x.flip(0))).abs() / (x - x.flip(0)).norm(dim=1)
    assert float(gap.nan_to_num().max()) <= f.lipschitz


def test_the_hypercube_function_is_its_sum_over_corners() -> None:
    f = random_hypercube_function(4, seed=3)
    x = 2 * torch.rand(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    for row, value in zip(x.tolist(), f(x).tolist(), strict=True):
        want = sum(
            float(f.corners[tuple((s + 1) // 2 for s in y)])
            * math.prod((1 + s * v) / 2 for s, v in zip(y, row, strict=True))
            for y in itertools.product((-1, 1), repeat=4)
        )
        assert value == pytest.approx(want)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=torch.float64)
    assert torch.equal(f(corners), f.corners.flatten())
    with pytest.raises(ConfigError):
        random_hypercube_function(21)
    with pytest.raises(ConfigError):
        random_polynomial(0)


def test_the_grid_function_is_hypercube_functions_side_by_side() -> None:
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(300, 2, generator=g, dtype=torch.float64) - 1
    one = random_grid_function(2, cells=1, seed=4)
    torch.testing.assert_close(one(x), HypercubeFunction(corners=one.corners)(x))
    f = random_grid_function(2, cells=3, seed=4)
    cell = ((x + 1) * 1.5).long()  # which of the 3 x 3 cells, and below: the row's place in it, from -1 to 1
    inside = (x + 1) * 3 - 2 * cell - 1
    for row, (i, j), value in zip(inside, cell.tolist(), f(x).tolist(), strict=True):
        own = HypercubeFunction(corners=f.corners[i : i + 2, j : j + 2])
        assert value == pytest.approx(float(own(row[None])))
    places = torch.linspace(-1, 1, 4, dtype=torch.float64)
    assert torch.equal(f(torch.cartesian_prod(places, places)).round(decimals=9), f.corners.flatten())
    gap = (f(x) - f(x.flip(0))).abs() / (x - x.flip(0)).norm(dim=1)
    assert 1 < float(gap.nan_to_num().max()) <= f.lipschitz == pytest.approx(3 * math.sqrt(2))
    with pytest.raises(ConfigError, match="At least one axis and cell"):
        random_grid_function(0, cells=3)
    with pytest.raises(ConfigError, match="got 9 axes"):
        random_grid_function(9, cells=9)


def test_inputs_have_the_dimension_that_they_say() -> None:
    x, u = on_subspace(500, features=20, dimension=3, generator=torch.Generator().manual_seed(0))
    assert int(torch.linalg.matrix_rank(x)) == 3 and float(u.abs().max()) <= 1
    torch.testing.assert_close(torch.cdist(x, x), torch.cdist(u, u) * math.sqrt(20 / 3), rtol=1e-6, atol=1e-6)
    assert float(x.square().mean()) == pytest.approx(1 / 3, rel=0.1)
    curved, v = on_manifold(4000, features=20, dimension=2, generator=torch.Generator().manual_seed(0))
    near = (v - v[0]).norm(dim=1) < 0.15
    values = torch.linalg.svdvals(curved[near] - curved[near].mean(0))
    assert float(values[1] / values[2]) > 5 and int(torch.linalg.matrix_rank(curved)) > 2


def test_buckets_grow_with_the_dimension_of_the_data_not_of_the_space() -> None:
    def buckets(features: int, dimension: int) -> int:
        g = torch.Generator().manual_seed(0)
        x, _ = on_subspace(20000, features=features, dimension=dimension, generator=g)
        h = random_hash(features, 8, width=math.sqrt(features) / 2, generator=g)
        table = BucketTable(8)
        table.add(h.vectors(x))
        return len(table)

    low, high, more = buckets(16, 2), buckets(128, 2), buckets(128, 3)
    assert 0.5 < low / high < 2 and more > 3 * high


@pytest.mark.parametrize(("features", "dimension", "degree"), [(32, 1, 0), (32, 2, 0), (128, 2, 0), (32, 2, 1)])
def test_measured_exponents_follow_the_dimension(features: int, dimension: int, degree: int) -> None:
    g = torch.Generator().manual_seed(0)
    x, u = on_subspace(60000, features=features, dimension=dimension, generator=g)
    y = torch.sin(3 * u).sum(1, keepdim=True)
    buckets, errors = [], []
    for scale in (2, 3, 4, 5):
        settings = BucketSettings(
            degree=degree,
            shrinkage=0.0 if degree == 0 else 1e-6,
            scale=scale,
            directions="orthogonal",
            hashes=dimension if dimension == 1 else 2 * dimension,
        )
        model = BucketRegression(settings)
        model.start(x[:5000], y[:5000])
        model.add(x[:50000], y[:50000])
        buckets.append(float(len(model.ladder(0)[-1].counts)))
        errors.append(float((model.predict(x[50000:]) - y[50000:]).square().mean().sqrt()))
    fit = fit_exponent(buckets, errors, predicted=predicted_slope(dimension=dimension, degree=degree))
    assert fit.slope == pytest.approx(fit.predicted, rel=0.25)
