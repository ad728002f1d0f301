"""Transforms and moments against their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.learn import (
    average_sensitivity,
    cube,
    estimate_average_sensitivity,
    estimate_influences,
    estimate_noise_sensitivity,
    fwht,
    goldreich_levin,
    influences,
    krawtchouk_table,
    noise_sensitivity,
    spectrum,
    tail,
    walsh_kernel,
    weight_by_degree,
)
from lazyneuron.learn.samples import degree_weights_from_samples
from lazyneuron.ops.boolean.design import WalshDesign
from lazyneuron.ops.boolean.operators import operators, pair_sums
from lazyneuron.ops.boolean.packing import bit_count
from lazyneuron.ops.boolean.reference import columns, fwht_
from lazyneuron.ops.boolean.subsets import as_tuples, count_subsets, rank, sizes, subset_table

IMPLS = ["numpy", *(["native"] if operators() is not None else [])]


def by_definition(n: int, degree: int) -> list[tuple[int, ...]]:
    sets = [s for k in range(degree + 1) for s in itertools.combinations(range(n), k)]
    return sorted(sets, key=lambda s: (len(s), s[::-1]))


def features(x: np.ndarray, degree: int) -> np.ndarray:
    return np.stack([x[:, list(s)].astype(float).prod(1) for s in by_definition(x.shape[1], degree)], axis=1)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("levels", [0, 1, 2, 3, 4, 5, 9, 13])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_the_transform_is_the_hadamard_matrix(impl: str, levels: int, dtype: type) -> None:
    from scipy.linalg import hadamard

    x = np.random.default_rng(levels).integers(-9, 9, (3, 2**levels)).astype(dtype)
    few = levels // 2  # the matrix is the product of two smaller ones, by its definition
    left, right = (hadamard(2**part) if part else np.ones((1, 1)) for part in (levels - few, few))
    folded = x.astype(float).reshape(3, 2 ** (levels - few), 2**few)
    expected = (left @ folded @ right).reshape(3, -1)
    assert np.array_equal(fwht(x, impl=impl), expected)  # whole numbers: exact
    if dtype is not np.int64:
        out = x.copy()
        assert fwht(out, in_place=True, impl=impl) is out and np.array_equal(out, expected)


@pytest.mark.skipif("native" not in IMPLS, reason="no kernels here")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("levels", "threads"),
    # each worker joins neighbours up to 2^20 numbers, if there is such a part for each; the rest is passes over all
    [
        *((n, 2) for n in range(13)),
        *zip((14, 15, 16, 17, 18, 18, 19, 20, 21, 23), (1, 2, 2, 3, 1, 2, 3, 5, 2, 65), strict=True),
    ],
)
def test_native_steps_add_in_the_order_of_the_definition(dtype: type, levels: int, threads: int) -> None:
    import torch

    ops, rows, length = operators("native"), 3 if levels < 15 else 1, 2**levels
    values = np.random.default_rng(levels).standard_normal((rows, length)).astype(dtype)
    expected = values.copy()
    fwht_(expected)
    memory = np.empty(rows * length + 32, dtype)
    aligned = -memory.ctypes.data % 64 // memory.itemsize
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for level in range(ops.best_boolean_isa() + 1):
            for past in (0, 4, 7):  # whole lines, as numpy's arrays lie, and as no register does
                found = memory[aligned + past :][: rows * length].reshape(rows, length)
                found[:] = values
                ops.fwht_(torch.from_numpy(found), level)
                assert np.array_equal(found, expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("dtype", "levels"), [(np.float64, 17), (np.float32, 18), (np.float64, 21)])
def test_long_transforms_put_every_character_on_one_place(dtype: type, levels: int) -> None:
    index = np.arange(2**levels)
    wanted = 0b101 << (levels - 4) | 1
    x = (1 - 2 * (bit_count(index & wanted) & 1)).astype(dtype)
    found = fwht(x)
    assert found[wanted] == 2**levels and np.count_nonzero(found) == 1
    assert np.array_equal(fwht(found) / 2**levels, x)


def test_a_transform_that_cannot_be_is_refused() -> None:
    with pytest.raises(ShapeError, match="power of two long, got 6"):
        fwht(np.zeros(6))
    with pytest.raises(ShapeError, match="in place takes a writeable contiguous"):
        fwht(np.zeros((4, 8)).T, in_place=True)
    with pytest.raises(ConfigError, match="impl is one of auto, native, numpy"):
        fwht(np.zeros(8), impl="fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1, 4, 7])
def test_fourier_quantities_by_brute_force(n: int) -> None:
    f = np.random.default_rng(n).standard_normal(2**n)
    x = cube.points(n).astype(float)
    coefficients = spectrum(f)
    for mask in range(2**n):
        chi = x[:, [i for i in range(n) if mask >> i & 1]].prod(1)
        assert coefficients[mask] == pytest.approx(np.mean(f * chi), abs=1e-12)
    weights = weight_by_degree(coefficients)
    assert weights.sum() == pytest.approx(np.mean(f**2)) and len(weights) == n + 1
    index = np.arange(2**n)
    per_bit = [np.mean((f - f[index ^ (1 << i)]) ** 2) / 4 for i in range(n)]
    assert influences(coefficients) == pytest.approx(per_bit)
    assert average_sensitivity(weights) == pytest.approx(sum(per_bit))
    rho = 0.3
    different = np.array([[bin(a ^ b).count("1") for b in index] for a in index])
    chance = ((1 - rho) / 2) ** different * ((1 + rho) / 2) ** (n - different)
    direct = (chance * (f[:, None] - f[None]) ** 2).sum() / 2**n / 4
    assert noise_sensitivity(weights, rho) == pytest.approx(direct)
    assert tail(weights, 0) == pytest.approx(np.var(f))


@pytest.mark.parametrize(("n", "degree"), [(1, 0), (1, 1), (5, 0), (5, 2), (6, 3), (6, 6)])
def test_subsets_stand_in_graded_colex_order(n: int, degree: int) -> None:
    table = subset_table(n, degree)
    assert list(as_tuples(table)) == by_definition(n, degree) and len(table) == count_subsets(n, degree)
    assert [rank(s, n) for s in by_definition(n, degree)] == list(range(len(table)))
    assert sizes(n, degree).tolist() == [len(s) for s in by_definition(n, degree)]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("m", "n", "degree"), [(1, 1, 0), (1, 1, 1), (7, 3, 2), (64, 5, 3), (65, 6, 1), (3000, 9, 2), (40_000, 5, 5)]
)
def test_the_unwritten_design_is_the_written_one(impl: str, m: int, n: int, degree: int) -> None:
    x = cube.random_points(m, n, seed=m)
    phi = features(x, degree)
    design = WalshDesign(x, degree, impl=impl)  # type: ignore[arg-type]
    generator = np.random.default_rng(1)
    y, c = generator.standard_normal(m), generator.standard_normal(phi.shape[1])
    assert np.array_equal(columns(x, degree), phi)
    assert design.analysis(y) == pytest.approx(phi.T @ y, abs=1e-9)
    assert design.synthesis(c) == pytest.approx(phi @ c, abs=1e-9)
    assert np.array_equal(design.gram(), phi.T @ phi)
    assert np.array_equal(design.moments(), phi.sum(0))


@pytest.mark.skipif("native" not in IMPLS, reason="no kernels here")
@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_isa_level_gives_the_same(level: int) -> None:
    import torch

    ops = operators("native")
    if level > ops.best_boolean_isa():
        pytest.skip("this processor does not run it")
    x = cube.random_points(5000, 8, seed=0)
    design = WalshDesign(x, 3, impl="native")
    y = np.random.default_rng(0).standard_normal(5000)
    bits, target = design._bits, torch.from_numpy(y)
    best = design.analysis(y)
    assert np.array_equal(ops.walsh_analysis(bits, target, 3, level).numpy(), best)
    assert np.array_equal(ops.walsh_moments(bits, 5000, 6, level).numpy(), design.moments(6))
    given = torch.from_numpy(best)
    assert np.array_equal(ops.walsh_synthesis(bits, given, 5000, 3, level).numpy(), design.synthesis(best))
    vector = torch.from_numpy(np.random.default_rng(1).standard_normal(2**17))
    assert torch.equal(ops.fwht_(vector.clone(), level), torch.from_numpy(fwht(vector.numpy())))


@pytest.mark.parametrize(("n", "degree"), [(1, 1), (6, 3), (70, 2)])
@pytest.mark.parametrize("impl", IMPLS)
def test_the_krawtchouk_kernel_is_the_explicit_gram(impl: str, n: int, degree: int) -> None:
    a, b = cube.random_points(30, n, seed=1), cube.random_points(20, n, seed=2)
    expected = columns(a, degree) @ columns(b, degree).T
    assert np.array_equal(walsh_kernel(a, b, degree=degree, impl=impl), expected)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="rows of one length"):
        walsh_kernel(a, np.ones((2, n + 1)), degree=1)


def test_krawtchouk_numbers_by_brute_force() -> None:
    n = 6
    x = cube.points(n)
    for t, row in enumerate(krawtchouk_table(n, n)):
        for h, value in enumerate(row):
            y = np.where(np.arange(n) < h, -1, 1)
            assert value == sum(np.prod(y[list(s)]) for s in itertools.combinations(range(n), t))
    assert x.shape == (64, 6)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("n", [3, 64, 90])
def test_pair_sums(impl: str, n: int) -> None:
    x = cube.random_points(700, n, seed=n)
    y = np.random.default_rng(0).standard_normal(700)
    expected = np.zeros(n + 1)
    for a in range(700):
        np.add.at(expected, (x[a] != x[a + 1 :]).sum(1), y[a] * y[a + 1 :])
    assert pair_sums(x, y, impl=impl) == pytest.approx(expected, abs=1e-9)  # type: ignore[arg-type]


def test_degree_weights_are_unbiased_on_every_sample_of_a_tiny_cube() -> None:
    n, m = 2, 3
    f = np.array([1.0, -2.0, 0.5, 3.0])
    x = cube.points(n)
    found = [
        degree_weights_from_samples(x[list(s)], f[list(s)], max_degree=2, center=False).weights
        for s in itertools.product(range(4), repeat=m)
    ]
    assert np.mean(found, axis=0) == pytest.approx(weight_by_degree(spectrum(f)))


def test_degree_weights_stay_within_their_variance_bound() -> None:
    n, m, repeats = 8, 60, 300
    f = np.random.default_rng(0).standard_normal(2**n)
    coefficients, x = spectrum(f), cube.points(n)
    degrees = bit_count(np.arange(2**n))
    generator = np.random.default_rng(1)
    found = []
    for _ in range(repeats):
        at = generator.integers(0, 2**n, m)
        found.append(degree_weights_from_samples(x[at], f[at], max_degree=3, center=False).weights)
    for t in range(4):
        level = fwht(np.where(degrees == t, coefficients, 0.0))
        bound = 4 * np.mean(f**2 * level**2) / m + 2 * math.comb(n, t) * np.mean(f**4) / (m * (m - 1))
        assert np.var([w[t] for w in found]) <= bound * (1 + 5 / math.sqrt(repeats))


def test_estimates_by_queries_cover_the_truth() -> None:
    n = 6
    f = np.random.default_rng(2).standard_normal(2**n)

    def ask(x: np.ndarray) -> np.ndarray:
        return f[((x < 0) * (1 << np.arange(n))).sum(1)]

    weights = weight_by_degree(spectrum(f))
    assert estimate_influences(ask, n, samples=20_000) == pytest.approx(influences(spectrum(f)), rel=0.1)
    for truth, estimate in (
        (average_sensitivity(weights), lambda seed, **kw: estimate_average_sensitivity(ask, n, seed=seed, **kw)),
        (noise_sensitivity(weights, 0.5), lambda seed, **kw: estimate_noise_sensitivity(ask, n, 0.5, seed=seed, **kw)),
    ):
        missed = sum(not (e := estimate(seed, samples=500, delta=0.1)).low <= truth <= e.high for seed in range(200))
        assert missed <= 20 + 3 * math.sqrt(200 * 0.1 * 0.9)
    wide = estimate_average_sensitivity(ask, n, samples=500, span=float(np.ptp(f)), delta=0.1)
    assert wide.method == "empirical Bernstein" and wide.low <= average_sensitivity(weights) <= wide.high
    with pytest.raises(ConfigError, match="delta lies strictly between"):
        estimate_average_sensitivity(ask, n, delta=1.0)


def test_goldreich_levin_finds_the_large_coefficients_and_only_those() -> None:
    n, planted = 30, {(3,): 0.5, (0, 7, 29): -0.6, (1, 2, 4, 8, 16): 0.4}

    def ask(x: np.ndarray) -> np.ndarray:
        return sum(c * x[:, list(s)].astype(float).prod(1) for s, c in planted.items())

    found = goldreich_levin(ask, n, 0.3, samples=20_000)
    assert found.keys() == planted.keys()
    assert all(abs(found[s] - c) < 0.03 for s, c in planted.items())
    with pytest.raises(ConfigError, match="theta"):
        goldreich_levin(ask, n, 0.0)


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ShapeError, match="one label for each row, got 4 rows and 3 labels"):
        degree_weights_from_samples(np.ones((4, 2)), np.zeros(3), max_degree=1)
    with pytest.raises(DataError, match="at least 2 samples, got 1"):
        degree_weights_from_samples(np.ones((1, 2)), np.zeros(1), max_degree=1)
    with pytest.raises(DataError, match="NaN or infinity"):
        degree_weights_from_samples(np.ones((2, 2)), [0.0, np.nan], max_degree=1)
    with pytest.raises(ConfigError, match="whole number from 0 to the number of columns, 2, got 3"):
        count_subsets(2, 3)
    with pytest.raises(ConfigError, match=r"Enumerating the cube takes 2\^40"):
        cube.check_enumerable(40)
    with pytest.raises(ConfigError, match="A correlation"):
        noise_sensitivity(np.ones(3), 1.5)
