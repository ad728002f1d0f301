"""Bucket estimators against brute force: means and least squares by grouping rows in plain Python."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from lazyneuron.core.errors import CheckpointError, ConfigError, DataError, ImplUnavailable
from lazyneuron.ops.native import load
from lazyneuron.route.bucket_regression import BucketRegression
from lazyneuron.route.bucket_settings import BucketSettings
from lazyneuron.route.constructions import random_hash_layer, top_k_layer
from lazyneuron.route.estimators import (
    LSHClassifier,
    LSHRegressor,
    SparseNetworkRegressor,
    load_estimator,
    save_estimator,
)
from lazyneuron.route.least_squares import TopStatistics, _rows_of, _without_a_gram, solve_top, units
from tests.core.resealed import reseal

IMPLS = ["native", "python"] if load.status().available else ["python"]


def sample(n: int, d: int = 3, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    x = dice.uniform(-1, 1, (n, d)) * np.arange(1, d + 1) + 5
    return x, np.sin(x[:, 0] * 2) + x[:, -1] ** 2 * 0.1 + 0.05 * dice.normal(size=n)


def names(model: LSHRegressor, x: np.ndarray, *, table: int = 0) -> list[tuple[int, ...]]:
    """Bucket names at the width in use, from the hash's own formula."""
    affine, shift = model.model_.pyramids[table].affine, model.model_.shift
    v = x @ affine.directions.numpy() + affine.offsets.numpy()
    return [tuple(math.floor(c / (affine.width * 2**shift)) for c in row) for row in v]


@pytest.mark.parametrize("impl", IMPLS)
def test_without_shrinkage_a_prediction_is_the_mean_of_the_bucket(impl: str) -> None:
    x, y = sample(1500)
    model = LSHRegressor(degree=0, shrinkage=0.0, scale=4, directions="gaussian", impl=impl).fit(x, y)
    groups = defaultdict(list)
    for name, value in zip(names(model, x), y, strict=True):
        groups[name].append(value)
    own = names(model, x)
    np.testing.assert_allclose(model.predict(x), [np.mean(groups[n]) for n in own], rtol=1e-9)
    _, spread = model.predict(x, return_std=True)
    np.testing.assert_allclose(spread, [np.std(groups[n]) for n in own], atol=1e-7)
    assert model.bucket_counts(x).tolist() == [len(groups[n]) for n in own]
    assert model.n_buckets_ == len(groups) and model.bucket_width_ == pytest.approx(0.5)


@pytest.mark.parametrize("impl", IMPLS)
def test_an_empty_bucket_is_answered_for_by_the_next_coarser_known_one(impl: str) -> None:
    x, y = sample(300)
    model = LSHRegressor(degree=0, shrinkage=0.0, scale=6, directions="orthogonal", impl=impl).fit(x, y)
    asked = sample(400, seed=1)[0]
    affine, shift = model.model_.pyramids[0].affine, model.model_.shift
    coarser = 0
    for row, got in zip(asked, model.predict(asked), strict=True):
        for step in range(20):
            width = affine.width * 2.0 ** (shift + step)
            cell = np.floor((row @ affine.directions.numpy() + affine.offsets.numpy()) / width)
            mates = (np.floor((x @ affine.directions.numpy() + affine.offsets.numpy()) / width) == cell).all(1)
            if mates.any() or shift + step >= 20:
                break
        coarser += step > 0
        assert got == pytest.approx(y[mates].mean() if mates.any() else y.mean())
    assert coarser > 100
    assert np.isfinite(model.predict(np.full((1, 3), 1e3))).all()


def test_affine_buckets_with_hardly_any_shrinkage_are_least_squares() -> None:
    x, y = sample(2000)
    model = LSHRegressor(degree=1, shrinkage=1e-9, scale=1, directions="orthogonal").fit(x, y)
    groups = defaultdict(list)
    for number, name in enumerate(names(model, x)):
        groups[name].append(number)
    predicted, checked = model.predict(x), 0
    for rows in groups.values():
        if len(rows) < 8:
            continue
        design = np.c_[np.ones(len(rows)), x[rows]]
        fitted, *_ = np.linalg.lstsq(design, y[rows], rcond=None)
        np.testing.assert_allclose(predicted[rows], design @ fitted, atol=1e-4)
        spread = model.predict(x[rows[:1]], return_std=True)[1][0]
        assert spread == pytest.approx(float(np.std(y[rows] - design @ fitted)), abs=1e-4)
        checked += 1
    assert checked > 5


def test_shrinkage_is_ridge_towards_the_coarser_scale() -> None:
    x, y = sample(400, 1)
    kappa = 3.0
    model = LSHRegressor(degree=0, shrinkage=kappa, scale=5, directions="gaussian", hashes=1).fit(x, y)
    affine, shift = model.model_.pyramids[0].affine, model.model_.shift
    v = x[:, 0] * float(affine.directions[0, 0]) + float(affine.offsets[0])
    want = np.full(len(x), y.mean())
    for level in range(20, shift - 1, -1):
        cell = np.floor(v / (affine.width * 2.0**level))
        for name in np.unique(cell):
            own = cell == name
            n = own.sum()
            want[own] = want[own] + (y[own].mean() - want[own]) * n / (n + kappa)
    np.testing.assert_allclose(model.predict(x), want, rtol=1e-9)


def test_the_width_is_the_one_with_the_least_held_out_error() -> None:
    x, y = sample(3000)
    model = LSHRegressor(degree=0, directions="orthogonal").fit(x, y)
    errors = model.scale_errors_
    assert len(errors) > 4 and min(errors, key=errors.get) == model.bucket_width_
    smooth = LSHRegressor(degree=0, directions="orthogonal").fit(x, np.random.default_rng(0).normal(size=3000))
    assert smooth.bucket_width_ > 2 * model.bucket_width_  # noise has no fine structure


def test_streaming_adds_up_to_the_same_sums() -> None:
    x, y = sample(4000)
    whole = LSHRegressor(scale=4, directions="orthogonal").partial_fit(x, y)
    parts = LSHRegressor(scale=4, directions="orthogonal").partial_fit(x[:2000], y[:2000])
    parts.model_ = None
    settings = BucketSettings(scale=4, directions="orthogonal")
    one, two = BucketRegression(settings), BucketRegression(settings)
    xs, ys = torch.from_numpy(x), torch.from_numpy(y)[:, None]
    for model in (one, two):
        model.start(xs, ys)
    one.add(xs, ys)
    for a in range(0, 4000, 700):
        two.add(xs[a : a + 700], ys[a : a + 700])
    torch.testing.assert_close(one.predict(xs), two.predict(xs), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.predict(x), one.predict(xs)[:, 0].numpy(), rtol=1e-9)


def test_streams_hold_rows_out_and_choose_the_width_anew() -> None:
    x, y = sample(20000, 2)
    model = LSHRegressor(degree=0, directions="orthogonal").partial_fit(x[:200], y[:200])
    early = min(model.partial_fit(x[200:400], y[200:400]).scale_errors_.values())
    model.partial_fit(x[400:], y[400:])
    errors = model.scale_errors_
    assert min(errors.values()) < early / 2 and errors[model.bucket_width_] == min(errors.values())
    assert model.model_.held_out is not None and 1500 < len(model.model_.held_out[0]) < 2500
    assert model.score(x, y) > 0.9


def test_at_capacity_the_finest_width_is_given_up() -> None:
    x, y = sample(3000)
    tight = LSHRegressor(degree=0, shrinkage=0.0, scale=6, capacity=60, directions="orthogonal").fit(x, y)
    assert tight.n_buckets_ <= 60 and tight.bucket_width_ > 8 / 2**6
    level = round(math.log2(8 / tight.bucket_width_))
    free = LSHRegressor(degree=0, shrinkage=0.0, scale=level, directions="orthogonal").fit(x, y)
    np.testing.assert_allclose(tight.predict(x), free.predict(x), rtol=1e-9)


def test_learned_directions_find_what_matters() -> None:
    dice = np.random.default_rng(0)
    x = dice.uniform(-1, 1, (8000, 6))
    y = np.sin(4 * (x[:, 0] + x[:, 1]))
    scores = {
        d: LSHRegressor(directions=d).fit(x[:6000], y[:6000]).score(x[6000:], y[6000:])
        for d in ("orthogonal", "learned")
    }
    assert scores["learned"] > 0.9 > scores["orthogonal"] + 0.3


def test_rows_on_a_line_in_many_dimensions_have_slopes_along_it_only() -> None:
    line = np.linspace(-1, 1, 20000)
    x = line[:, None] * np.random.default_rng(0).normal(size=32)
    model = LSHRegressor(degree=1, shrinkage=1e-6, hashes=1, scale=9, directions="orthogonal").fit(x, np.sin(3 * line))
    assert model.score(x, np.sin(3 * line)) > 1 - 1e-6


def test_several_tables_vary_less() -> None:
    x, y = sample(3000)
    few, many = (LSHRegressor(degree=0, tables=t, directions="gaussian").fit(x[:2000], y[:2000]) for t in (1, 12))
    assert many.score(x[2000:], y[2000:]) > few.score(x[2000:], y[2000:])
    by_table = [LSHRegressor(degree=0, tables=2, scale=4, directions="gaussian").fit(x, y) for _ in range(2)]
    np.testing.assert_array_equal(by_table[0].predict(x), by_table[1].predict(x))


def test_constant_columns_outputs_and_single_precision() -> None:
    x, y = sample(1500)
    with_constant = np.c_[x, np.full(1500, 7.0), np.zeros(1500)]
    assert LSHRegressor(degree=1).fit(with_constant, y).score(with_constant, y) > 0.9
    two = LSHRegressor(degree=1, scale=2).fit(x, np.c_[y, -y])
    one = LSHRegressor(degree=1, scale=2, directions="orthogonal")
    assert two.predict(x).shape == (1500, 2)
    np.testing.assert_allclose(two.predict(x)[:, 0], -two.predict(x)[:, 1], atol=1e-9)
    single = one.fit(x.astype(np.float32), y)
    assert single.score(x.astype(np.float32), y) > 0.8
    same = LSHRegressor().fit(np.ones((30, 2)), np.arange(30.0))
    np.testing.assert_allclose(same.predict(np.ones((2, 2))), 14.5)


@pytest.mark.parametrize("impl", IMPLS)
def test_bad_rows_are_refused_and_change_nothing(impl: str) -> None:
    x, y = sample(500)
    model = LSHRegressor(impl=impl).fit(x, y)
    before = model.predict(x)
    for value, message in ((np.nan, "NaN"), (np.inf, "infinity|finite|large"), (1e12, "32 bits")):
        bad = x.copy()
        bad[400, 1] = value
        with pytest.raises(ValueError, match=message):
            model.predict(bad)
        with pytest.raises(ValueError, match=message):
            model.partial_fit(bad, y)
    np.testing.assert_array_equal(model.predict(x), before)
    with pytest.raises(ValueError, match="4 features, but LSHRegressor is expecting 3"):
        model.predict(np.zeros((2, 4)))
    assert model.predict(x[:1]).shape == (1,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tables": 0},
        {"degree": 2},
        {"shrinkage": -1.0},
        {"shrinkage": 0.0},
        {"directions": "best"},
        {"scale": 21},
        {"held_out": 1.0},
        {"capacity": 0},
        {"impl": "cuda"},
    ],
)
def test_settings_without_meaning(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError):
        LSHRegressor(**wrong).fit(*sample(50))


def test_classification_by_shares() -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    labels = np.array([f"digit {v}" for v in y])
    model = LSHClassifier(tables=16, degree=0, hashes=12).fit(x[:1400], labels[:1400])
    chances = model.predict_proba(x[1400:])
    assert np.allclose(chances.sum(1), 1) and (chances >= 0).all()
    assert (model.classes_[chances.argmax(1)] == model.predict(x[1400:])).all()
    assert model.score(x[1400:], labels[1400:]) > 0.8
    stream = LSHClassifier(degree=0, tables=4)
    with pytest.raises(DataError, match="needs `classes`"):
        stream.partial_fit(x[:9], y[:9])
    stream.partial_fit(x[:700], y[:700], classes=range(10)).partial_fit(x[700:1400], y[700:1400])
    assert stream.score(x[1400:], y[1400:]) > 0.6
    with pytest.raises(DataError, match="none of the classes"):
        stream.partial_fit(x[:2], [11, 12])


def test_classes_as_shares_in_each_bucket() -> None:
    x, y = sample(800)
    labels = (y > np.median(y)).astype(int)
    model = LSHClassifier(degree=0, shrinkage=0.0, scale=3, directions="gaussian").fit(x, labels)
    same = LSHRegressor(degree=0, shrinkage=0.0, scale=3, directions="gaussian").fit(x, labels.astype(float))
    np.testing.assert_allclose(model.predict_proba(x)[:, 1], same.predict(x), atol=1e-9)


def test_files_bring_back_the_same_predictions(tmp_path: Path) -> None:
    x, y = sample(900)
    labels = np.where(y > 0.5, "high", "low")
    stream = LSHRegressor().partial_fit(x, y)
    for number, (model, target) in enumerate(
        [(LSHRegressor(tables=2).fit(x, y), y), (LSHClassifier().fit(x, labels), labels), (stream, y)]
    ):
        save_estimator(model, tmp_path / str(number))
        again = load_estimator(tmp_path / str(number))
        np.testing.assert_array_equal(again.predict(x), model.predict(x))
        assert again.get_params() == model.get_params() and again.bucket_width_ == model.bucket_width_
        again.partial_fit(x, target)
        assert again.score(x, target) > 0.8
    with pytest.raises(ConfigError, match="A fitted"):
        save_estimator(LSHRegressor(), tmp_path / "no")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    x, y = sample(300)
    save_estimator(LSHRegressor().fit(x, y), tmp_path)
    document = tmp_path / "route.json"
    good = document.read_text()
    for key, value in (
        ("estimator", "Other"), ("estimator", []), ("outputs", 3), ("outputs", 10**30), ("bases", ["x"]),
        ("parameters", {"a": 1}), ("parameters", 3), ("kind", "x"), ("errors", [[0, "x"]]), ("rows", None),
    ):  # fmt: skip
        document.write_text(good)
        reseal(document, lambda facts, key=key, value=value: {**facts, key: value})
        with pytest.raises(CheckpointError):
            load_estimator(tmp_path)
    with pytest.raises(CheckpointError):
        load_estimator(tmp_path / "nowhere")


def test_the_top_layer_is_ridge_regression() -> None:
    x, y = (
        torch.randn(400, 4, generator=torch.Generator().manual_seed(0)).double(),
        torch.from_numpy(sample(400)[1])[:, None],
    )
    model = top_k_layer(4, 60, active=15).double()
    phi = model.router.mask(x) * (x @ model.bottom.t()).relu()
    ridge = 1e-3
    centred, target = phi - phi.mean(0), y - y.mean(0)
    want = torch.linalg.solve(centred.t() @ centred + 400 * ridge * torch.eye(60), centred.t() @ target)
    top, bias = solve_top(model, x, y, ridge=ridge)
    torch.testing.assert_close(top.t(), want, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(bias, y.mean(0) - phi.mean(0) @ want, rtol=1e-6, atol=1e-8)
    sums = TopStatistics(model)
    for a in range(0, 400, 90):
        sums.add(x[a : a + 90], y[a : a + 90])
    torch.testing.assert_close(sums.solve(ridge=ridge)[0], top)
    matrix = _rows_of([units(model, x[:70]), units(model, x[70:])], 400, active=15, width=60)
    gradients = _without_a_gram(matrix, y, ridge, 500, 1e-12)
    torch.testing.assert_close(gradients[0], top, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients[1], bias, rtol=1e-5, atol=1e-6)
    wide = random_hash_layer(4, 9000, active=8).double()
    assert solve_top(wide, x, y, ridge=1e-2)[0].shape == (1, 9000)
    with pytest.raises(ConfigError, match="up to 8192 units"):
        TopStatistics(wide)


def test_many_units_without_scipy_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    wide = random_hash_layer(4, 9000, active=8).double()
    with pytest.raises(ImplUnavailable, match="fitted by SciPy"):
        solve_top(wide, torch.zeros(3, 4).double(), torch.zeros(3, 1).double())


def test_sparse_networks_by_router() -> None:
    x, y = sample(2000, 4)
    scores = {
        name: SparseNetworkRegressor(router=name, width=512, active=64)
        .fit(x[:1500], y[:1500])
        .score(x[1500:], y[1500:])
        for name in ("top_k", "random_hash", "hyperplane_lsh")
    }
    assert scores["top_k"] > 0.95 > scores["random_hash"]
    own = SparseNetworkRegressor(router=top_k_layer(4, 300, active=30).router).fit(x, y)
    assert own.score(x, y) > 0.9
    parts = SparseNetworkRegressor(width=256, active=32).partial_fit(x[:1000], y[:1000])
    assert parts.partial_fit(x[1000:], y[1000:]).score(x, y) > 0.9
    with pytest.raises(ConfigError, match="router is one of"):
        SparseNetworkRegressor(router="best").fit(x, y)
