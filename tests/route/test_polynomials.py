"""Polynomials in buckets: exact where the target is one, and as fast as the theory says where it is smooth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.route import (
    BucketPolynomials,
    HyperplaneLSH,
    SparseLayer,
    fit_exponent,
    lsh_model_flops,
    monomials,
    polynomial_terms,
    predicted_slope,
    random_hash,
    random_polynomial,
)


def rows(count: int, features: int, *, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(count, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("degree", [0, 1, 2, 4])
def test_monomials_are_all_products(features: int, degree: int) -> None:
    x = rows(7, features)
    chosen = [c for k in range(degree + 1) for c in itertools.combinations_with_replacement(range(features), k)]
    want = torch.tensor([[np.prod([row[j] for j in c]) for c in chosen] for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(monomials(x, degree), want)
    assert polynomial_terms(features=features, degree=degree) == len(chosen)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_polynomial_of_the_degree_is_found_exactly_and_one_of_more_is_not(degree: int) -> None:
    x, asked = rows(4000, 2), rows(500, 2, seed=1)
    h = [random_hash(2, 2, width=1.0, generator=torch.Generator().manual_seed(s), orthogonal=True) for s in range(2)]
    same, more = (random_polynomial(2, degree=k, seed=5) for k in (degree, degree + 1))
    model = BucketPolynomials(h, degree=degree, ridge=1e-12)
    error = (model.fit(x, same(x)[:, None]).predict(asked)[:, 0] - same(asked)).abs().max()
    assert float(error) < 1e-6
    error = (model.fit(x, more(x)[:, None]).predict(asked)[:, 0] - more(asked)).abs().max()
    assert float(error) > 1e-3


def test_buckets_of_degree_0_are_means_and_unseen_ones_the_overall_mean() -> None:
    x = torch.tensor([[0.1], [0.2], [5.1], [5.2]])
    y = torch.tensor([[1.0, 0.0], [2.0, 0.0], [10.0, 4.0], [20.0, 8.0]])
    h = random_hash(1, 1, width=1.0, generator=torch.Generator().manual_seed(0), orthogonal=True)
    model = BucketPolynomials([h], degree=0).fit(x, y)
    asked = torch.tensor([[0.15], [5.15], [300.0]])
    torch.testing.assert_close(model.predict(asked), torch.tensor([[1.5, 0], [15, 6], [8.25, 3]]).double())
    assert model.buckets == 2


@pytest.mark.parametrize("degree", [2, 3])
def test_the_slope_of_a_smooth_target_in_one_dimension(degree: int) -> None:
    x, asked = rows(40_000, 1), rows(4000, 1, seed=1)
    found = []
    for power in range(1, 5):
        h = random_hash(1, 1, width=2.0**-power, generator=torch.Generator().manual_seed(0), orthogonal=True)
        model = BucketPolynomials([h], degree=degree, ridge=1e-13).fit(x, (4 * x).sin())
        found.append((model.buckets, float((model.predict(asked) - (4 * asked).sin()).square().mean().sqrt())))
    fit = fit_exponent(*zip(*found, strict=True), predicted=predicted_slope(dimension=1, degree=degree))
    assert fit.predicted == -(degree + 1)
    assert fit.slope == pytest.approx(fit.predicted, rel=0.15)


def test_flops_are_those_of_the_parts() -> None:
    # hashing: 3 tables of 10 hyperplanes in 4 features; 15 products of at most two of 4 entries, 2 outputs a table
    assert lsh_model_flops(features=4, tables=3, hyperplanes=10, degree=2, outputs=2) == 3 * (2 * 10 * 4 + 2 * 2 * 15)
    assert lsh_model_flops(features=4, tables=3, hyperplanes=10) == 3 * (2 * 10 * 4 + 1)


def test_a_trained_layer_of_degree_2_learns_what_one_of_degree_1_cannot() -> None:
    x = rows(2000, 3).float()
    y = (x[:, :1] * x[:, 1:2]) + x[:, 2:] ** 2
    errors = {}
    for degree in (1, 2):
        layer = SparseLayer(HyperplaneLSH(3, 1, seed=1), 1, degree=degree)
        optimizer = torch.optim.SparseAdam(layer.parameters(), lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            loss = (layer(x) - y).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        errors[degree] = float(loss.detach() / y.var())
    assert errors[2] < 0.01 < 0.1 < errors[1]


def test_bad_input_is_refused() -> None:
    h = random_hash(2, 2, width=1.0, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="At least one hash"):
        BucketPolynomials([], degree=1)
    with pytest.raises(ConfigError, match="positive ridge"):
        BucketPolynomials([h], degree=1, ridge=0.0)
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        monomials(torch.ones(1, 2), -1)
    with pytest.raises(ConfigError, match="degree is at least 0"):
        SparseLayer(HyperplaneLSH(3, 1), 1, degree=-1)
    model = BucketPolynomials([h], degree=1)
    with pytest.raises(DataError, match="no row"):
        model.fit(torch.ones(0, 2), torch.ones(0, 1))
    with pytest.raises(DataError, match="NaN"):
        model.fit(torch.full((3, 2), torch.nan), torch.ones(3, 1))
    with pytest.raises(ShapeError, match="as many targets"):
        model.fit(torch.ones(3, 2), torch.ones(3))
