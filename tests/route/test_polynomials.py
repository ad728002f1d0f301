"""Polynomials in buckets: exact where the target is one, and as fast as the theory says where it is smooth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.route import (
    AffineHash,
    BucketPolynomials,
    EuclideanLSH,
    HyperplaneLSH,
    SparseLayer,
    bucket_polynomials,
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


def one_hash(features: int, width: float, seed: int = 0) -> AffineHash:
    return random_hash(features, features, width=width, generator=torch.Generator().manual_seed(seed))


def outlier() -> torch.Tensor:
    z = torch.linspace(0, 1e-3, 1000, dtype=torch.float64)[:, None].clone()
    z[0] = 1
    return z


@pytest.mark.parametrize("degree", [4, 8, 20])
def test_an_outlier_is_learned_and_does_not_spoil_its_bucket(degree: int) -> None:
    z = outlier()
    model = BucketPolynomials([one_hash(1, 1e3, seed=3)], degree=degree).fit(z, z)
    assert model.buckets == 1
    assert float((model.predict(z) - z).abs().max()) < 1e-4  # of a target of 1


@pytest.mark.parametrize("degree", [12, 20, 40])
def test_more_terms_than_rows(degree: int) -> None:
    x, asked = rows(50, 2), rows(500, 2, seed=1)
    model = BucketPolynomials([one_hash(2, 1e3)], degree=degree).fit(x, x.sin())
    assert float((model.predict(x) - x.sin()).abs().max()) < 1e-3
    assert float((model.predict(asked) - asked.sin()).abs().max()) < 0.2


@pytest.mark.parametrize("width", [1e6, 50.0])
def test_heavy_tails_fit_better_than_the_mean(width: float) -> None:
    x = torch.exp(2 * torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    y = x.log().sum(1, keepdim=True)
    model = BucketPolynomials([one_hash(3, width)], degree=5).fit(x[:16_000], y[:16_000])
    learned, asked = model.predict(x[:16_000]) - y[:16_000], model.predict(x[16_000:]) - y[16_000:]
    assert float(learned.square().mean() / y[:16_000].var()) < 0.75
    # the farthest of new rows lie where nothing was learned; most do not
    assert float(asked.abs().median()) < float((y - y.mean()).abs().median())


def test_small_ridges_and_collinear_rows_have_a_solution() -> None:
    x = rows(400, 1).expand(400, 3)  # three times the same column, where rounding decides about every direction
    model = BucketPolynomials([one_hash(3, 1e3)], degree=6, ridge=1e-300).fit(x, x[:, :1].sin())
    assert float((model.predict(x) - x[:, :1].sin()).abs().max()) < 1e-4


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e20, 1e300])
def test_the_unit_of_the_rows_does_not_matter(scale: float) -> None:
    x = rows(300, 2)
    found = BucketPolynomials([one_hash(2, 1e3 * scale)], degree=3).fit(x * scale, x).predict(x * scale)
    assert float((found - x).abs().max()) < 1e-4


def test_few_rows_in_a_corner_do_not_decide_about_it() -> None:
    x = rows(60_000, 4)  # some of the buckets at the cube's corners have a handful of rows
    h = random_hash(4, 4, width=0.5, generator=torch.Generator().manual_seed(0), orthogonal=True)
    y = (3 * x).sin().sum(1, keepdim=True)
    model = BucketPolynomials([h], degree=3).fit(x[:50_000], y[:50_000])
    assert float((model.predict(x[50_000:]) - y[50_000:]).abs().max() / y.std()) < 10


def test_a_failed_fit_leaves_what_was_learned() -> None:
    x = rows(500, 2)
    model = BucketPolynomials([one_hash(2, 1.0)], degree=2).fit(x, x[:, :1])
    before, buckets = model.predict(x), model.buckets
    far = x.clone()
    far[-1] = 1e30  # its bucket's number leaves 32 bits
    for wrong in (far, torch.full_like(x, torch.nan)):
        with pytest.raises(DataError):
            model.fit(wrong, 5 + x[:, 1:])
        assert model.buckets == buckets and torch.equal(model.predict(x), before)


def test_buckets_are_fitted_in_groups_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x, seen, unchanged = rows(3000, 2), [], bucket_polynomials._squares

    def squares(parts: Any, **sizes: int) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(sizes["buckets"])
        return unchanged(parts, **sizes)  # type: ignore[arg-type]

    for degree in (2, 9):  # few terms and many
        whole = BucketPolynomials([one_hash(2, 0.5)], degree=degree).fit(x, x.sin()).predict(x)
        with monkeypatch.context() as changed:
            changed.setattr(bucket_polynomials, "_AT_ONCE", 500)
            changed.setattr(bucket_polynomials, "_squares", squares)
            seen.clear()
            parts = BucketPolynomials([one_hash(2, 0.5)], degree=degree).fit(x, x.sin())
        torch.testing.assert_close(parts.predict(x), whole, rtol=1e-6, atol=1e-6)
        assert len(seen) > 1 and sum(seen) == parts.buckets
        assert max(seen) <= max(1, 500 // polynomial_terms(features=2, degree=degree) ** 2)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_layer_takes_one_row_and_none(degree: int) -> None:
    for router in (HyperplaneLSH(4, 3, tables=2), EuclideanLSH(4, 1.0, tables=2, capacity=8)):
        layer = SparseLayer(router, 3, degree=degree)
        torch.nn.init.normal_(layer.table)
        x = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(layer(x[1, 2]), layer(x)[1, 2])
        assert layer(torch.ones(0, 4)).shape == (0, 3)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: SparseLayer(HyperplaneLSH(4, 3), 1, degree=2.5), "whole number, got 2.5"),  # type: ignore[arg-type]
        (lambda: SparseLayer(HyperplaneLSH(4, 3), 1, degree=None), "whole number, got None"),  # type: ignore[arg-type]
        (lambda: SparseLayer(HyperplaneLSH(4, 3), 0), "number of outputs is a whole number of at least 1"),
        (lambda: SparseLayer(HyperplaneLSH, 1), "routed by a Router"),  # type: ignore[arg-type]
        (lambda: SparseLayer(HyperplaneLSH(64, 16), 1, degree=12), "does not fit into memory; take a lower degree"),
        (lambda: SparseLayer(HyperplaneLSH(64, 16), 10**400, degree=2), "does not fit into memory"),
    ],
)
def test_layers_that_cannot_be_are_refused(layer: Callable[[], SparseLayer], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layer()


def test_bad_input_is_refused() -> None:
    h = random_hash(2, 2, width=1.0, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="At least one hash"):
        BucketPolynomials([], degree=1)
    with pytest.raises(ConfigError, match="as a list of AffineHash; got AffineHash"):
        BucketPolynomials(h, degree=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="different numbers of features"):
        BucketPolynomials([h, one_hash(3, 1.0)], degree=1)
    for ridge in (0.0, -1.0, math.nan, math.inf, "1", None):
        with pytest.raises(ConfigError, match="The ridge is a"):
            BucketPolynomials([h], degree=1, ridge=ridge)  # type: ignore[arg-type]
    for degree in (2.0, math.nan, -1, None, "2", True, 10**400):
        for make in (
            lambda d: BucketPolynomials([h], degree=d),
            lambda d: SparseLayer(HyperplaneLSH(3, 1), 1, degree=d),
            lambda d: monomials(torch.ones(1, 2), d),
        ):
            with pytest.raises(ConfigError, match="degree of a polynomial is a whole number"):
                make(degree)
    with pytest.raises(ConfigError, match=r"at most 12 entries .* allowed are 2\^31"):
        monomials(torch.ones(1000, 64), 12)
    model = BucketPolynomials([h], degree=1)
    with pytest.raises(ConfigError, match="call fit first"):
        model.predict(torch.ones(3, 2))
    with pytest.raises(DataError, match=r"torch\.as_tensor"):
        model.fit(np.ones((3, 2)), np.ones((3, 1)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"torch\.as_tensor"):
        model.fit(torch.ones(3, 2), np.ones((3, 1)))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="at least one output"):
        model.fit(torch.ones(3, 2), torch.ones(3, 0))
    with pytest.raises(ConfigError, match="at most 4096 are fitted"):
        BucketPolynomials([one_hash(64, 1.0)], degree=12).fit(torch.ones(3, 64), torch.ones(3, 1))
    with pytest.raises(DataError, match="wider buckets or a lower degree"):
        # 61 buckets of 4095 terms and 2200 outputs
        BucketPolynomials([one_hash(2, 1e-6)], degree=89).fit(rows(61, 2), torch.ones(61, 2200))
    with pytest.raises(DataError, match="not finite; scale them"):
        model.fit(torch.ones(3, 2), torch.full((3, 1), 1.7e308, dtype=torch.float64))
    with pytest.raises(DataError, match="no row"):
        model.fit(torch.ones(0, 2), torch.ones(0, 1))
    with pytest.raises(DataError, match="NaN"):
        model.fit(torch.full((3, 2), torch.nan), torch.ones(3, 1))
    with pytest.raises(ShapeError, match="as many targets"):
        model.fit(torch.ones(3, 2), torch.ones(3))
    model.fit(torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(DataError, match=r"torch\.as_tensor"):
        model.predict(np.ones((3, 2)))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="Rows of 2 numbers"):
        model.predict(torch.ones(3))
