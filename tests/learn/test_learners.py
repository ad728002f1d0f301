"""Learners against scikit-learn, closed forms and the networks that they should recover."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Lasso, LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import check_estimator

from lazyneuron.core.errors import ConfigError, DataError, LazyNeuronError
from lazyneuron.learn import cube, spectrum
from lazyneuron.learn.bounds import (
    batches_for,
    gram_failure,
    largest_eigenvalue_bound,
    least_eigenvalue_bound,
    samples_ols,
)
from lazyneuron.learn.estimators import (
    GramWarning,
    LowDegreeClassifier,
    LowDegreeRegressor,
    SparseReluRegressor,
    WalshFeatures,
)
from lazyneuron.learn.instances import (
    code_net,
    gated_net,
    hamming_code,
    index_net,
    junta_net,
    lifted_parity,
    modulus_net,
    parity_net,
)
from lazyneuron.learn.solvers import lanczos, least_squares
from lazyneuron.learn.solvers.least_squares import batched_least_squares, central_fit
from lazyneuron.ops.boolean.design import WalshDesign
from lazyneuron.ops.boolean.packing import bit_count
from lazyneuron.ops.boolean.reference import columns
from lazyneuron.ops.boolean.subsets import as_tuples, count_subsets, rank


def polynomial(m: int, n: int, degree: int, *, seed: int = 0, noise: float = 0.0) -> tuple:
    generator = np.random.default_rng(seed)
    x = cube.random_points(m, n, seed=generator)
    c = generator.standard_normal(count_subsets(n, degree))
    return x, columns(x, degree) @ c + noise * generator.standard_normal(m), c


def in_our_order(features: PolynomialFeatures, n: int) -> list[int]:
    """Places of scikit-learn's features in graded colex order."""
    return [rank(np.flatnonzero(row).tolist(), n) for row in features.powers_]


def numbers(subsets: np.ndarray) -> list[int]:
    """Each subset as the number with these bits set."""
    return [sum(1 << t for t in s) for s in as_tuples(subsets)]


def test_features_are_those_of_scikit_learn() -> None:
    x = cube.random_points(40, 6, seed=0)
    theirs = PolynomialFeatures(3, interaction_only=True).fit(x)
    ours = WalshFeatures(3).fit(x)
    assert np.array_equal(ours.transform(x)[:, in_our_order(theirs, 6)], theirs.transform(x))
    names = ours.get_feature_names_out()
    assert names[in_our_order(theirs, 6)].tolist() == theirs.get_feature_names_out().tolist()
    assert ours.n_output_features_ == 42
    short = WalshFeatures(3, include_bias=False, dtype=np.int8).fit_transform(x)
    assert short.dtype == np.int8 and np.array_equal(short, ours.transform(x)[:, 1:])


@pytest.mark.parametrize("alpha", [0.3, 50.0])
@pytest.mark.parametrize("solver", ["ridge", "kernel"])
def test_ridge_is_that_of_scikit_learn(alpha: float, solver: str) -> None:
    x, y, _ = polynomial(400, 8, 2, noise=0.5)
    theirs = make_pipeline(PolynomialFeatures(2, interaction_only=True, include_bias=False), Ridge(alpha)).fit(x, y)
    ours = LowDegreeRegressor(2, solver=solver, alpha=alpha).fit(x, y)
    order = in_our_order(theirs[0], 8)
    assert ours.coef_[order] == pytest.approx(theirs[1].coef_, abs=1e-9)
    assert ours.coef_[0] == pytest.approx(theirs[1].intercept_, abs=1e-9)
    assert ours.predict(x) == pytest.approx(theirs.predict(x), abs=1e-9)


def test_least_squares_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = polynomial(2500, 7, 3, noise=1.0)
    expected = np.linalg.lstsq(columns(x, 3), y, rcond=None)[0]
    dense = LowDegreeRegressor(3, solver="ols").fit(x, y)
    assert dense.coef_ == pytest.approx(expected, abs=1e-10)
    monkeypatch.setattr(least_squares, "DENSE", 0)
    steps = LowDegreeRegressor(3, solver="ols").fit(x, y)
    assert steps.coef_ == pytest.approx(expected, abs=1e-8) and "conjugate" in steps.method_
    gram = columns(x, 3).T @ columns(x, 3) / 2500
    least = np.linalg.eigvalsh(gram)[0]
    assert dense.gram_min_eigenvalue_ == pytest.approx(least)
    assert 0.5 <= steps.gram_min_eigenvalue_ <= least  # proved, so from below
    assert dense.gram_bound_.failure_probability == 0 < steps.gram_bound_.failure_probability <= 1e-6
    ridge = LowDegreeRegressor(3, solver="ridge", alpha=20.0).fit(x, y)
    monkeypatch.undo()
    assert ridge.coef_ == pytest.approx(LowDegreeRegressor(3, solver="ridge", alpha=20.0).fit(x, y).coef_, abs=1e-8)


@pytest.mark.parametrize("dense", [3000, 0])
def test_a_duplicated_column_is_seen_however_many_features_there_are(
    dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(least_squares, "DENSE", dense)
    x, y, _ = polynomial(1500, 9, 2, noise=0.1)
    x[:, 8] = x[:, 0]  # the least eigenvalue is 0, and the labels have no part along its vectors
    with pytest.warns(GramWarning, match="below the 0.5"):
        model = LowDegreeRegressor(2, solver="ols").fit(x, y)
    assert 0 <= model.gram_min_eigenvalue_ < 1e-9 and (dense or model.gram_bound_.vacuous)


def test_what_is_not_proved_is_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_squares, "DENSE", 0)
    x, y, _ = polynomial(4000, 7, 2, noise=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LowDegreeRegressor(2, solver="ols").fit(x, y).gram_min_eigenvalue_ >= 0.5
    monkeypatch.setattr(lanczos, "_MOST_STEPS", 2)  # too few to prove what is true
    with pytest.warns(GramWarning, match="not proved to reach the 0.5"):
        found = LowDegreeRegressor(2, solver="ols").fit(x, y)
    assert found.gram_min_eigenvalue_ < 0.5 < np.linalg.eigvalsh(columns(x, 2).T @ columns(x, 2) / 4000)[0]


class Diagonal:
    """Stands for a design whose Gram matrix is diagonal with these entries."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.size, self.m = values, len(values), 1

    def synthesis(self, c: np.ndarray) -> np.ndarray:
        return np.sqrt(self.values) * c

    analysis = synthesis


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, *np.linspace(1, 2, 30)], [0.3] * 3 + [1.0] * 20 + [4.0]])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_ends_of_a_spectrum_are_missed_no_more_often_than_promised(values: list[float], steps: int) -> None:
    delta, missed, trials = 0.3, np.zeros(2), 400
    for seed in range(trials):
        made = lanczos.Lanczos(Diagonal(np.array(values)), steps=steps, seed=seed)
        while not made.exhausted:
            made.step()
        kwargs = {"size": len(values), "delta": delta}
        low = least_eigenvalue_bound(made.diagonal, made.beside, **kwargs).value
        high = largest_eigenvalue_bound(made.diagonal, made.beside, **kwargs).value
        missed += [low > min(values) + 1e-9, high < max(values) - 1e-9]
        assert min(values) - 1e-9 <= made.least().at_most  # the Ritz value errs upwards, always
    assert (missed <= trials * delta + 3 * math.sqrt(trials * delta * (1 - delta))).all()
    if values == [0.0, 1.0] and steps == 1:  # by hand: missed where the angle's tangent is below delta sqrt(pi / 4)
        chance = 2 / math.pi * math.atan(delta * math.sqrt(math.pi / 4))
        assert missed / trials == pytest.approx(chance, abs=4 * math.sqrt(chance / trials))


def test_the_kernel_without_penalty_interpolates_with_least_norm() -> None:
    x, y, _ = polynomial(40, 8, 3)
    phi = columns(x, 3)[:, 1:]
    expected = LinearRegression().fit(phi, y)  # least norm by its singular values, constant free
    ours = LowDegreeRegressor(3, solver="kernel", alpha=0.0).fit(x, y)
    assert ours.coef_[1:] == pytest.approx(expected.coef_, abs=1e-8)
    assert ours.predict(x) == pytest.approx(y, abs=1e-8)
    other = cube.random_points(20, 8, seed=9)
    assert ours.predict(other) == pytest.approx(expected.predict(columns(other, 3)[:, 1:]), abs=1e-8)
    ours.coef_ = None  # as when there are too many features to write out
    assert ours.predict(other) == pytest.approx(expected.predict(columns(other, 3)[:, 1:]), abs=1e-8)


@pytest.mark.parametrize(("n", "degree"), [(5, 2), (7, 3)])  # fewer features than rows, and more
def test_the_penalty_by_leave_one_out_is_the_best_of_brute_force(n: int, degree: int) -> None:
    x, y, _ = polynomial(40, n, degree, noise=2.0)
    chosen = float(LowDegreeRegressor(degree, solver="kernel").fit(x, y).method_.split()[-1])

    def left_out(alpha: float) -> float:
        total = 0.0
        for i in range(40):
            keep = np.arange(40) != i
            model = Ridge(alpha).fit(columns(x[keep], degree)[:, 1:], y[keep])
            total += (y[i] - model.predict(columns(x[i : i + 1], degree)[:, 1:])[0]) ** 2
        return float(total)

    grid = np.geomspace(chosen / 30, chosen * 30, 7)
    assert left_out(chosen) <= min(left_out(a) for a in grid) * 1.02


def test_the_lasso_is_that_of_scikit_learn() -> None:
    x, y, _ = polynomial(80, 9, 2, noise=1.0)
    theirs = Lasso(0.4, tol=1e-10, max_iter=100_000).fit(columns(x, 2)[:, 1:], y)
    ours = LowDegreeRegressor(2, solver="lasso", alpha=0.4).fit(x, y)
    assert ours.coef_[1:] == pytest.approx(theirs.coef_, abs=0.02)
    assert ours.coef_[0] == pytest.approx(theirs.intercept_, abs=0.02)
    residual = lambda c, b: ((y - columns(x, 2)[:, 1:] @ c - b) ** 2).sum() / 160 + 0.4 * np.abs(c).sum()  # noqa: E731
    best = residual(theirs.coef_, theirs.intercept_)
    assert residual(ours.coef_[1:], ours.coef_[0]) <= best + 2e-6 * y.var()


def test_averaging_over_the_whole_cube_is_the_transform() -> None:
    n = 7
    f = np.random.default_rng(0).standard_normal(2**n)
    for center in (False, True):
        model = LowDegreeRegressor(n, solver="lmn", center=center).fit(cube.points(n), f)
        assert model.coef_ == pytest.approx(spectrum(f)[numbers(model.subsets_)], abs=1e-12)


def test_l1_regression_ignores_a_few_wild_labels() -> None:
    x, y, c = polynomial(120, 5, 2)
    wild = y.copy()
    wild[::10] += 1000
    model = LowDegreeRegressor(2, solver="l1").fit(x, wild)
    assert model.coef_ == pytest.approx(c, abs=1e-7)


@pytest.mark.parametrize("solver", ["ols", "ridge", "lmn"])
def test_streaming_is_exact(solver: str) -> None:
    x, y, _ = polynomial(900, 6, 2, noise=0.3)
    whole = LowDegreeRegressor(2, solver=solver).fit(x, y)
    parts = LowDegreeRegressor(2, solver=solver)
    for begin in range(0, 900, 300):
        parts.partial_fit(x[begin : begin + 300], y[begin : begin + 300])
    assert parts.coef_ == pytest.approx(whole.coef_, abs=1e-12)
    assert not hasattr(LowDegreeRegressor(2, solver="lasso"), "partial_fit")


@pytest.mark.parametrize(
    ("instance", "degree"),
    [
        (junta_net(np.arange(8.0), n=12), 3),
        (parity_net(4, n=12), 4),
        (index_net(2), 3),
        (gated_net(2, 4), 6),
        (modulus_net([1.0, 2, 3, 1, 1]), 4),
        (code_net(hamming_code(3), seed=0), 7),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_reachable_generator_is_recovered_exactly(instance: object, degree: int) -> None:
    n = instance.net.n  # type: ignore[attr-defined]
    m = int(samples_ols(count_subsets(n, degree), 0.05).value)
    x, y = instance.sample(m, seed=1)  # type: ignore[attr-defined]
    model = LowDegreeRegressor(degree, solver="ols").fit(x, y)
    truth = spectrum(instance.net.table())[numbers(model.subsets_)]  # type: ignore[attr-defined]
    assert model.coef_ == pytest.approx(truth, abs=1e-9)
    assert model.weight_by_degree_.sum() == pytest.approx(np.mean(instance.net.table() ** 2))  # type: ignore[attr-defined]


def test_least_squares_fails_no_more_often_than_promised() -> None:
    instance, degree, delta = gated_net(3, 5, seed=0), 2, 0.1
    table = instance.net.table()
    coefficients = spectrum(table)
    size = count_subsets(8, degree)
    m = int(samples_ols(size, delta).value)
    above = 2 * float((coefficients[bit_count(np.arange(256)) > degree] ** 2).sum())
    failures = 0
    for seed in range(200):
        x, y = instance.sample(m, seed=seed)
        model = LowDegreeRegressor(degree, solver="ols").fit(x, y)
        failures += np.mean((model.predict(cube.points(8)) - table) ** 2) > above
    assert failures <= 200 * delta + 3 * math.sqrt(200 * delta * (1 - delta))


def test_the_gram_matrix_is_bad_no_more_often_than_promised() -> None:
    n, degree, m = 5, 1, 150
    grams = (WalshDesign(cube.random_points(m, n, seed=seed), degree).gram() / m for seed in range(300))
    least = np.array([np.linalg.eigvalsh(gram)[0] for gram in grams])
    for floor in (0.3, 0.5, 0.6):
        promised = gram_failure(6, m, floor=floor)
        assert promised < 1 and (least < floor).sum() <= 300 * promised + 3 * math.sqrt(300 * promised)


def test_averaging_reaches_its_expected_risk() -> None:
    instance, degree, m, repeats = gated_net(3, 5, seed=0), 2, 400, 100
    table = instance.net.table()
    coefficients = spectrum(table)
    above = float((coefficients[bit_count(np.arange(256)) > degree] ** 2).sum())
    risks = []
    for seed in range(repeats):
        x, y = instance.sample(m, seed=seed)
        model = LowDegreeRegressor(degree, solver="lmn", center=False).fit(x, y)
        risks.append(np.mean((model.predict(cube.points(8)) - table) ** 2))
    bound = above + count_subsets(8, degree) * np.mean(table**2) / m
    assert 0.85 * bound < np.mean(risks) <= bound * 1.05  # D7 is nearly an equality


def test_the_central_fit_is_near_the_majority_and_outliers_do_not_matter() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        truth, count = generator.standard_normal(5), 11
        good = truth + 0.1 * generator.standard_normal((6, 5))
        bad = truth + generator.standard_normal((5, 5)) * 100
        fits = generator.permutation(np.concatenate([good, bad]))
        radius = np.sort(np.linalg.norm(fits - truth, axis=1))[count // 2]
        assert np.linalg.norm(fits[central_fit(fits)] - truth) <= 3 * radius
    with pytest.raises(DataError, match="at least one fit"):
        central_fit(np.empty((0, 3)))


def test_the_central_fit_tells_fits_apart_that_are_close_and_large() -> None:
    fits = 1e9 + np.array([[5.0], [1.0], [0.0], [0.5], [-5.0]])  # squares of differences drown in squares
    assert central_fit(fits) == 3


def test_batches_with_noise_are_good_with_high_probability() -> None:
    x, _, c = polynomial(1, 3, 1, seed=5)
    residual, error = 0.05, 0.2
    plan = batches_for(4, 0.2, residual=residual, error=error)
    failures = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        x = cube.random_points(plan.count * plan.rows, 3, seed=generator)
        y = columns(x, 1) @ c + math.sqrt(residual) * generator.standard_normal(len(x))
        found = batched_least_squares(x, y, degree=1, batches=plan.count)
        failures += ((found - c) ** 2).sum() > error
    assert failures <= 40 * 0.2


@pytest.mark.parametrize("rule", ["auto", "spectrum"])
def test_the_degree_is_found(rule: str) -> None:
    x, y = parity_net(3, n=10).sample(4000, seed=0, noise=0.5)
    model = LowDegreeRegressor(rule).fit(x, y)
    assert model.degree_ == 3 and model.score(*parity_net(3, n=10).sample(500, seed=1)) > 0.9
    assert model.degree_choice_.rule == ("cv" if rule == "auto" else rule)


def test_a_vacuous_bound_says_so() -> None:
    x, y, _ = polynomial(200, 4, 2)
    with pytest.warns(UserWarning, match="The bound is vacuous: it names degree 4"):
        model = LowDegreeRegressor("bound", sparsity=3, norm=1.0, error=0.1).fit(x, y)
    assert model.degree_ == 4


@pytest.mark.parametrize("rule", ["bound", "certificate"])
def test_the_degree_by_a_bound_under_either_name(rule: str) -> None:
    instance = parity_net(2, norm=0.5, n=6)
    x, y = instance.sample(600, seed=0)
    model = LowDegreeRegressor(rule, sparsity=1, norm=0.5, error=0.34).fit(x, y)
    assert model.degree_ == 2 and model.score(x, y) == pytest.approx(1.0)
    assert model.degree_choice_.rule == "bound"


@pytest.mark.parametrize("solver", ["threshold", "lasso"])
def test_a_parity_among_thousands_of_features_is_found_from_few_rows(solver: str) -> None:
    x, y = parity_net(4, n=20).sample(120, seed=0)
    model = LowDegreeRegressor(4, solver=solver).fit(x, y)
    assert len(model.coef_) == 6196
    assert int(np.abs(model.coef_).argmax()) == rank([0, 1, 2, 3], 20)


def test_cross_validation_equals_fitting_every_fold() -> None:
    x, y, _ = polynomial(300, 6, 2, noise=2.0)
    scores = LowDegreeRegressor("cv", cv=3).fit(x, y).degree_choice_.scores
    for d, score in enumerate(scores):
        total = 0.0
        for f in range(3):
            inside = slice(100 * f, 100 * (f + 1))
            train = np.delete(np.arange(300), np.arange(300)[inside])
            c = np.linalg.lstsq(columns(x[train], d), y[train], rcond=None)[0]
            total += ((y[inside] - columns(x[inside], d) @ c) ** 2).sum()
        assert score == pytest.approx(total / 300, rel=1e-5)


@pytest.mark.parametrize("values", [(0, 1), (-1, 1), (2.5, 7.0), (False, True)])
def test_two_valued_columns_are_encoded_and_others_refused(values: tuple) -> None:
    x = np.array(values)[(cube.points(4) > 0).astype(int)]
    y = np.arange(16.0)
    model = LowDegreeRegressor(4, solver="lmn").fit(x, y)
    assert model.predict(x) == pytest.approx(y)
    assert model.pairs_.tolist() == [[float(v) for v in values]] * 4
    wrong = x.astype(float)
    wrong[3, 2] = 99
    with pytest.raises(DataError, match=r"Column 2 holds 99\.0, but only"):
        model.predict(wrong)
    with pytest.raises(DataError, match="Column 2 has 3 different values, two are allowed"):
        LowDegreeRegressor(1).fit(wrong, y)
    assert LowDegreeRegressor(1, encode="median").fit(wrong, y).predict(wrong).shape == (16,)


def test_a_column_with_one_value_keeps_its_meaning() -> None:
    x = np.array([[0, 0], [1, 0], [0, 0], [1, 0]])
    model = LowDegreeRegressor(1, solver="lmn").fit(x, [1.0, 2, 1, 2])
    assert model.pairs_.tolist() == [[0, 1], [0, 1]]
    assert len(model.predict([[0, 1]])) == 1


def test_classification_of_parity_and_of_several_classes() -> None:
    x = cube.random_points(600, 8, seed=0)
    label = np.where(x[:, 1] * x[:, 4] > 0, "even", "odd")
    model = LowDegreeClassifier(2).fit(x, label)
    assert model.score(x, label) == 1.0 and model.classes_.tolist() == ["even", "odd"]
    several = (x[:, 0] > 0) + 2 * (x[:, 1] * x[:, 2] > 0).astype(int)
    assert LowDegreeClassifier(2).fit(x, several).score(x, several) == 1.0
    flipped = np.where(np.random.default_rng(0).random(600) < 0.1, -1, 1) * np.sign(x[:, 0] + x[:, 1] + x[:, 2])
    robust = LowDegreeClassifier(3, solver="l1").fit(x[:200, :4], flipped[:200])
    assert robust.score(x[:, :4], np.sign(x[:, 0] + x[:, 1] + x[:, 2])) == 1.0
    with pytest.raises(DataError, match="1 class"):
        LowDegreeClassifier().fit(x, np.zeros(600))


def test_pipelines_names_and_grid_search() -> None:
    x, y, _ = polynomial(900, 4, 2, noise=0.1)
    search = GridSearchCV(LowDegreeRegressor(solver="ols"), {"degree": [1, 2, 3]}, cv=3).fit(x, y)
    assert search.best_params_ == {"degree": 2}
    pipe = make_pipeline(WalshFeatures(2), Ridge(1e-9)).fit(x, y)
    assert pipe.score(x, y) > 0.99


@pytest.mark.parametrize("pressure", ["none", "l1", "topk", "shift"])
def test_the_gradient_baseline_learns_and_reports_its_activity(pressure: str) -> None:
    x, y = gated_net(2, 4, seed=0).sample(600, seed=0)
    k = 5 if pressure == "topk" else None
    strength = 1.0 if pressure == "shift" else 3e-2
    model = SparseReluRegressor(48, pressure=pressure, k=k, strength=strength, epochs=250, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.8
    twice = [
        SparseReluRegressor(48, pressure=pressure, k=k, strength=strength, epochs=10, random_state=0).fit(x, y)
        for _ in range(2)
    ]
    assert np.array_equal(*(one.predict(x) for one in twice))
    hidden = np.maximum(x @ model.net_.weight.T - model.net_.threshold, 0)
    if pressure == "topk":
        assert model.activity_.max_active <= 5 < (hidden > 0).sum(1).max()
    else:
        assert model.activity_.mean_active == pytest.approx((hidden > 0).sum(1).mean(), rel=1e-3)
        assert model.predict(x) == pytest.approx(model.net_(x) + model.intercept_)


def test_pressure_lowers_activity() -> None:
    x, y = gated_net(2, 4, seed=0).sample(600, seed=0)
    active = [
        SparseReluRegressor(48, pressure="l1", strength=s, epochs=150, random_state=0).fit(x, y).activity_.mean_active
        for s in (0.0, 0.1)
    ]
    assert active[1] < 0.7 * active[0]


@pytest.mark.parametrize(
    "estimator",
    [
        LowDegreeRegressor(encode="median"),
        LowDegreeRegressor(1, solver="ridge", encode="median"),
        LowDegreeClassifier(encode="median"),
        WalshFeatures(encode="median"),
        SparseReluRegressor(32, epochs=40, random_state=0),
    ],
    ids=str,
)
def test_the_contract_of_scikit_learn(estimator: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(estimator)


@pytest.mark.parametrize("estimator", [LowDegreeRegressor(), LowDegreeClassifier(), WalshFeatures()], ids=str)
def test_the_contract_holds_but_for_continuous_input(estimator: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    failed = [r for r in results if r["status"] == "failed"]
    reasons = {r["check_name"]: str(r["exception"]) for r in failed}
    for name, reason in reasons.items():
        assert "two are allowed" in reason or name in {"check_positive_only_tag_during_fit"}, (name, reason)
    assert len(results) - len(failed) > 15


def test_the_gram_warning_is_about_the_eigenvalue() -> None:
    x, y, _ = polynomial(70, 6, 2, noise=1.0)
    with pytest.warns(GramWarning, match="below the 0.5"):
        LowDegreeRegressor(2, solver="ols").fit(x, y)


def test_clipping() -> None:
    x, y, _ = polynomial(60, 6, 2, noise=3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LowDegreeRegressor(2, solver="ols", clip=True).fit(x, y)
    found = model.predict(cube.points(6))
    assert found.min() >= y.min() and found.max() <= y.max()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"solver": "best"}, "A solver is one of"),
        ({"degree": "high"}, "A degree is a whole number or one of"),
        ({"degree": 1.5}, "whole number from 0"),
        ({"degree": -1}, "whole number from 0"),
        ({"alpha": -1.0, "solver": "ridge"}, "alpha is a finite number of at least 0"),
        ({"alpha": 1.0, "solver": "ols"}, "contradicts solver='ols'"),
        ({"degree": "bound", "norm": 1.0}, "degree='bound' needs .* sparsity, error is missing"),
        ({"degree": "certificate", "norm": 1.0}, "sparsity, error is missing"),
        ({"cv": 1}, "folds of cross-validation, is a whole number of at least 2"),
        ({"memory_limit_gib": 0.0}, "memory_limit_gib is a finite number above 0"),
        ({"degree": 3, "solver": "ols"}, "at least as many rows as features, got 30 rows and 42 features"),
        ({"degree": 2, "solver": "kernel", "memory_limit_gib": 1e-6}, "The kernel matrix of 30 rows would take"),
        ({"degree": 2, "solver": "lmn", "memory_limit_gib": 1e-6}, "Fitting 22 features of degree 2 would take"),
        ({"encode": "sign"}, "encode is one of auto, median"),
    ],
)
def test_bad_options_are_one_sentence(options: dict, said: str) -> None:
    x, y, _ = polynomial(30, 6, 1)
    with pytest.raises(LazyNeuronError, match=said):
        LowDegreeRegressor(**options).fit(x, y)


def test_bad_data_is_one_sentence() -> None:
    x, y, _ = polynomial(30, 6, 1)
    with pytest.raises(DataError, match="All labels equal 3"):
        LowDegreeRegressor(1).fit(x, np.full(30, 3.0))
    with pytest.raises(ValueError, match="NaN"):
        LowDegreeRegressor(1).fit(np.where(x > 0, np.nan, x), y)
    with pytest.raises(ConfigError, match="allowed are 10"):
        WalshFeatures(2, max_features=10).fit(x)
    with pytest.raises(AttributeError):
        LowDegreeRegressor("auto").partial_fit(x, y)  # type: ignore[attr-defined]
    big = np.zeros((4, 5000), np.int8)
    big[::2] = 1
    with pytest.raises(ConfigError, match="solver='kernel', whose cost does not depend on it"):
        LowDegreeRegressor(4, solver="lmn").fit(big, [1.0, 2, 3, 4])
    with pytest.raises(ConfigError, match="A pressure"):
        SparseReluRegressor(pressure="hard").fit(x, y)
    with pytest.raises(ConfigError, match="k goes with"):
        SparseReluRegressor(k=3).fit(x, y)
    with pytest.raises(ConfigError, match="linear program with 600 x 20876"):
        wide, target, _ = polynomial(600, 50, 1)
        LowDegreeRegressor(3, solver="l1").fit(wide, target)


def test_lifted_parity_is_hidden_from_correlations() -> None:
    """Compact lift: every monomial of degree d correlates with the parity only from 2 d >= |S| on."""
    m, size = 7, 5
    one = lifted_parity(m, range(size), compact=True, plus_minus=True)
    y = cube.points(m)
    x, label = one.lift(y), one.net(one.lift(y))
    for d in (1, 2):
        assert np.abs(columns(x, d).T @ label).max() == 0
    assert np.abs(columns(x, 3).T @ label).max() == len(y)
    assert list(as_tuples(np.array([[0, 1, -1]], np.int16))) == [(0, 1)]
    assert len(list(itertools.combinations(range(m), 2))) == 21


def frame() -> tuple[pd.DataFrame, np.ndarray]:
    dice = np.random.default_rng(0)
    table = pd.DataFrame(
        {"smokes": dice.choice(["yes", "no"], 300), "old": dice.random(300) < 0.5, "dose": dice.choice([2, 5], 300)}
    )
    smokes, old = np.where(table["smokes"] == "yes", 1.0, -1.0), np.where(table["old"], 1.0, -1.0)
    return table, 0.5 + smokes * old - 0.25 * np.where(table["dose"] == 5, 1.0, -1.0)


@pytest.mark.parametrize("dtypes", [{}, {"smokes": "category"}, {"dose": "Int64"}, {"old": object}])
def test_tables_of_words_and_numbers(dtypes: dict) -> None:
    table, y = frame()
    table = table.astype(dtypes)
    model = LowDegreeRegressor(2, solver="ols").fit(table, pd.Series(y))
    assert model.feature_names_in_.tolist() == ["smokes", "old", "dose"]
    terms = WalshFeatures(2).set_output(transform="pandas").fit_transform(table)
    coefficients = dict(zip(terms.columns, model.coef_, strict=True))
    wanted = {"1": 0.5, "smokes old": 1.0, "dose": -0.25}
    assert {name: wanted.get(name, 0.0) for name in coefficients} == pytest.approx(coefficients, abs=1e-9)
    assert model.predict(table) == pytest.approx(y) and model.predict(table.iloc[:3]) == pytest.approx(y[:3])
    side = np.where(y > 0, "above", "below")
    assert (LowDegreeClassifier(2).fit(table, side).predict(table) == side).all()
    for rows in (table.to_numpy(), table.to_numpy().tolist()):
        assert LowDegreeRegressor(2, solver="ols").fit(rows, y).coef_ == pytest.approx(model.coef_)


def test_tables_that_cannot_be_read() -> None:
    table, y = frame()
    model = LowDegreeRegressor(2, solver="ols").fit(table, y)
    with pytest.raises(ValueError, match="should match those that were passed"):
        model.predict(table[["old", "smokes", "dose"]])
    with pytest.raises(DataError, match="Column 'smokes' holds 'maybe', but only 'no' and 'yes' were seen"):
        model.predict(table.assign(smokes="maybe"))
    with pytest.raises(DataError, match="Column 'dose' holds 'much', but only numbers were seen"):
        model.predict(table.assign(dose="much"))
    with pytest.raises(DataError, match="Column 'smokes' has 3 different words"):
        model.fit(table.assign(smokes=np.resize(["a", "b", "c"], 300)), y)
    with pytest.raises(DataError, match="Column 'smokes' holds words, and nan besides"):
        model.fit(table.assign(smokes=table["smokes"].where(table.index != 3)), y)
    assert model.predict(table) == pytest.approx(y)  # failed calls change nothing


def test_names_pass_through_a_pipeline_and_a_search() -> None:
    table, y = frame()
    pipeline = make_pipeline(WalshFeatures(), Ridge(1e-6))
    search = GridSearchCV(pipeline, {"walshfeatures__degree": [1, 2]}, cv=3).fit(table, y)
    assert search.best_params_ == {"walshfeatures__degree": 2} and search.score(table, y) > 0.99
    assert search.best_estimator_[0].get_feature_names_out()[:4].tolist() == ["1", "smokes", "old", "dose"]
