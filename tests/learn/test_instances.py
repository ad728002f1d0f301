"""Networks of the class: values by their formulas, sparsity by counting, norms as stated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.learn import (
    SparseActivationNet,
    average_sensitivity,
    cube,
    noise_sensitivity,
    spectrum,
    verify_sparsity,
    weight_by_degree,
)
from lazyneuron.learn.instances import (
    cluster_erm,
    cluster_net,
    code_net,
    code_table,
    gated_net,
    golay_code,
    hamming_code,
    index_net,
    junta_net,
    lifted_parity,
    lwr_instance,
    modulus_net,
    parity_net,
    random_sparse_net,
)
from lazyneuron.learn.instances.lifted import digits_of


def weights_of(net: SparseActivationNet) -> np.ndarray:
    return weight_by_degree(spectrum(net.table()))


def test_a_network_by_hand() -> None:
    net = SparseActivationNet([[1.0, 2.0], [0.0, -1.0]], [1.0, 0.0], [2.0, -3.0])
    assert net([[1, 1], [-1, -1], [3, -1]]).tolist() == [4.0, -3.0, -3.0]
    assert net.active_counts([[1, 1], [-1, -1]]).tolist() == [1, 1]
    v, beta, sign = net.rebalance()
    assert v.tolist() == [[2, 4], [0, -3]] and beta.tolist() == [2, 0] and sign.tolist() == [1, -1]
    assert net.norms() == (math.sqrt(20), 2.0)
    assert SparseActivationNet(np.ones((1, 2)), [1.0], [0.0]).norms() == (0.0, 0.0)


@pytest.mark.parametrize("p", range(1, 7))
def test_juntas_are_what_they_are_given(p: int) -> None:
    values = np.random.default_rng(p).standard_normal(2**p)
    for amplitude in (1, 2):
        one = junta_net(values, n=p + 2, amplitude=amplitude)
        assert one.net.table() == pytest.approx(np.tile(values * amplitude, 4))
        assert one.net.norms()[0] == pytest.approx(np.abs(values).max() * math.sqrt(p))
        report = verify_sparsity(one.net)
        assert (report.max_active, report.exact, report.tolerance) == (1, True, 0.0)


@pytest.mark.parametrize("p", range(1, 9))
def test_parity_is_the_extremal_family(p: int) -> None:
    weights = weights_of(parity_net(p).net)
    assert weights == pytest.approx(np.eye(p + 1)[p] * 4)  # top coefficient 2
    assert average_sensitivity(weights) == pytest.approx(4 * p)
    for rho in (0.0, 0.5, 0.9):
        assert noise_sensitivity(weights, rho) == pytest.approx(2 * (1 - rho**p))
    k, norm = 3, 0.7
    scaled = parity_net(p, k=k, norm=norm)
    assert scaled.net.norms()[0] == pytest.approx(norm)
    assert average_sensitivity(weights_of(scaled.net)) == pytest.approx(4 * k**2 * norm**2)
    assert verify_sparsity(scaled.net).max_active == k == scaled.max_active
    assert scaled.net.norms()[1] == pytest.approx(norm * abs(p - 2) / math.sqrt(p))


@pytest.mark.parametrize("b", [1, 2, 3])
def test_index_reads_the_chosen_bit(b: int) -> None:
    one = index_net(b)
    x = cube.points(one.net.n)
    address = ((x[:, :b] < 0) * (1 << np.arange(b))).sum(1)
    assert np.array_equal(one.net(x), (1 + x[np.arange(len(x)), b + address]) / 2)
    assert average_sensitivity(weights_of(one.net)) == pytest.approx((1 + b / 2) / 4)
    assert verify_sparsity(one.net).max_active == 1
    assert one.net.norms() == pytest.approx((math.sqrt(b + 0.25), b - 0.5))


@pytest.mark.parametrize("mode", ["aligned", "independent"])
def test_gated_tables(mode: str) -> None:
    one = gated_net(3, 6, k=2, mode=mode, seed=1)
    assert one.net.s == 16 and verify_sparsity(one.net).max_active <= 2 == one.max_active
    gate = math.sqrt(6) / 2
    assert one.net.norms()[0] == pytest.approx(math.sqrt(1 + gate**2 * 3))
    assert one.net.norms()[1] == pytest.approx(gate * 3)
    x = cube.random_points(50, 9, seed=0)
    for row in x:  # the k neurons of the row's address, and nothing else
        own = [j for j in range(16) if np.array_equal(np.sign(one.net.weight[j, :3]), row[:3])]
        inner = np.maximum(one.net.weight[own][:, 3:] @ row[3:], 0) @ one.net.outer[own]
        assert float(one.net([row])[0]) == pytest.approx(inner)
    assert gated_net(3, 6, gate=0.01).max_active is None


def test_perfect_codes() -> None:
    assert [len(hamming_code(r).words) for r in (2, 3, 4)] == [2, 16, 2048]
    golay = golay_code()
    assert len(golay.words) == 4096
    assert min(bin(w).count("1") for w in golay.words if w) == 7
    for r in (3, 4):
        code = hamming_code(r)
        assert min(bin(w).count("1") for w in code.words if w) == 3
    one = code_net(hamming_code(3), seed=0)
    report = verify_sparsity(one.net)
    assert report.max_active == 1 and report.mean_active == 1.0  # exactly one everywhere
    table = one.net.table()
    assert set(np.abs(table)) == {2.0, 4.0}
    assert np.array_equal(code_table(hamming_code(3), one), table)


def test_hamming_sensitivity_is_the_stated_one() -> None:
    code = hamming_code(4)
    found, peaks = [], []
    for seed in range(20):
        weights = weight_by_degree(spectrum(code_table(code, code_net(code, norm=1.0, seed=seed))))
        found.append(average_sensitivity(weights))
        tails = weights[::-1].cumsum()[::-1][1:]
        peaks.append(max(tails * np.arange(1, 16) / 4))
    assert np.mean(found) == pytest.approx(1.875, abs=0.005) and min(found) > 1.855 and max(found) < 1.89
    assert min(peaks) > 0.27 and max(peaks) < 0.285


@pytest.mark.slow
def test_golay_sensitivity_is_the_stated_one() -> None:
    code = golay_code()
    table = code_table(code, code_net(code, norm=1.0, seed=0))
    weights = weight_by_degree(spectrum(table))
    assert average_sensitivity(weights) == pytest.approx(1.75, abs=0.01)


def parity_of(y: np.ndarray, subset: list[int]) -> np.ndarray:
    return np.asarray(y[:, subset].astype(np.int64).prod(axis=1))


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("compact", [False, True])
def test_the_corrected_parity_identity(size: int, compact: bool) -> None:
    subset = list(range(8 - size, 8))
    y = cube.points(8)
    one = lifted_parity(8, subset, compact=compact)
    x = one.lift(y)
    assert np.array_equal(one.net(x), (parity_of(y, subset) > 0).astype(float))
    assert (one.net.active_counts(x).max() == 1 and one.net.s == size // 2 + 1) or size % 2
    both = lifted_parity(8, subset, compact=compact, plus_minus=True)
    assert np.array_equal(both.net(x), parity_of(y, subset))
    assert both.net.active_counts(x).tolist() == [1] * 256
    off = 2 if compact else 1
    largest = max(abs(a) for a in range(-size, size + 1) if (a - size) % 4 == 0)
    norm = 2 * math.sqrt(off * size * (size - 1) + 4 * size * largest**2)
    assert one.net.norms() == pytest.approx((norm, 2 * (size + largest**2 - 0.5)))


def test_stated_norms_of_the_lifted_parity() -> None:
    norm, bias = lifted_parity(6, range(5)).net.norms()
    assert (round(norm, 2), bias) == (45.61, 59)
    assert lifted_parity(6, range(5)).net.s == 3


@pytest.mark.parametrize(("q", "p", "m"), [(4, 2, 2), (8, 4, 2), (5, 2, 2), (7, 3, 2)])
@pytest.mark.parametrize("rounding", ["floor", "mod"])
def test_learning_with_rounding_is_exact_for_every_input(q: int, p: int, m: int, rounding: str) -> None:
    for secret in itertools.islice(itertools.product(range(q), repeat=m), 1, None, 5):
        one = lwr_instance(q, p, secret, rounding=rounding)
        y = cube.points(one.base)
        digits = digits_of(y, one.base // m)
        inside = (digits < q).all(1)
        assert np.array_equal(one.allowed(y), inside)
        total = digits[inside] @ np.array(secret)
        label = p * (total % q) // q if rounding == "floor" else total % q % p
        assert np.array_equal(one.net(one.lift(y[inside])), label.astype(float))
        if rounding == "mod" and q % p == 0:  # then it is linear algebra
            assert np.array_equal(label, total % p) and "easy" in one.name
        assert one.net.active_counts(one.lift(y[inside])).max(initial=0) <= 1


def test_learning_with_rounding_says_where_nothing_is_rounded() -> None:
    assert "easy: nothing is rounded" in lwr_instance(5, 5, [1, 2]).name and "easy" not in lwr_instance(5, 2, [1]).name
    assert "easy" in lwr_instance(5, 5, [1, 2], rounding="mod").name
    for q, bits in ((2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)):
        assert lwr_instance(q, 2, [1]).base == bits


def test_random_nets_keep_their_promise_whatever_the_order_of_sums() -> None:
    for seed in range(30):
        one = random_sparse_net(8, 30, k=2, seed=seed)
        assert verify_sparsity(one.net).max_active == 2
        order = np.random.default_rng(seed).permutation(8)
        again = SparseActivationNet(one.net.weight[:, order], one.net.threshold, one.net.outer)
        assert verify_sparsity(again).max_active == 2
    soft = random_sparse_net(8, 30, threshold=0.5)
    assert soft.max_active is None and verify_sparsity(soft.net).effective > 1


def test_an_extreme_row_changes_no_other_rows_count() -> None:
    generator = np.random.default_rng(0)
    net = SparseActivationNet(generator.standard_normal((50, 8)), np.full(50, 0.5), np.ones(50))
    x = generator.standard_normal((20, 8))
    alone = (x @ net.weight.T > 0.5).sum(axis=1)
    wild = np.vstack([x, np.full((1, 8), 1e13)])
    assert net.active_counts(wild)[:20].tolist() == alone.tolist() == net.active_counts(x).tolist()
    found = verify_sparsity(net, wild)
    assert found.mean_active == pytest.approx((alone.sum() + (net.weight.sum(axis=1) > 0).sum()) / 21)
    small = 1e-13 * x  # nor does a scale that no row has
    still = SparseActivationNet(net.weight, np.zeros(50), np.ones(50))
    assert still.active_counts(small).tolist() == (x @ net.weight.T > 0).sum(axis=1).tolist()
    with pytest.raises(DataError, match="overflows on these rows"):
        net.active_counts(np.full((1, 8), 1e308))


def test_whole_weights_are_exact_on_whole_rows_only() -> None:
    net = SparseActivationNet(np.array([[1.0, 1.0, -1.0]]), [0.0], [1.0])
    tie = np.array([[0.1, 0.2, 0.3]])  # 0.1 + 0.2 - 0.3 is 5.6e-17 in double precision
    assert net.active_counts(np.vstack([tie, [[1.0, 0.3, 1.3]]])).tolist() == [0, 0]
    assert verify_sparsity(net, np.vstack([tie, np.ones((1, 3))])).tolerance > 0


def test_ties_of_scaled_parities_are_silent() -> None:
    for p in range(2, 9):
        assert verify_sparsity(parity_net(p, norm=1.0).net).max_active == 1


def test_clusters_and_their_majority() -> None:
    sign = np.array([1.0, -1, 1, -1])
    one = cluster_net(4, k=3, signs_of=sign, radius=2.0)
    x, y = one.sample(40, seed=0)
    assert np.array_equal(y, 3 * 2.0 * sign[x.argmax(1)]) and set(x.max(1)) == {2.0}
    cells = cluster_net(4, k=3, signs_of=sign, kind="cells")
    assert cells.net(cube.points(2)) == pytest.approx(6 * sign)
    for p in range(5):  # at every p the value is 2 k, whatever W and the lengths of inputs are
        more = cluster_net(2**p, k=3, kind="cells")
        assert more.net(cube.points(p)) == pytest.approx(6) and more.net.norms() == (math.sqrt(p), abs(p - 2))
    assert verify_sparsity(cells.net).max_active == 3
    assert cluster_erm(np.array([0, 0, 0, 2]), np.array([1, -1, -1, -1]), 4).tolist() == [-1, 1, -1, 1]


def test_the_modulus_and_sampling() -> None:
    one = modulus_net([1.0, 2.0, 4.0])
    x, y = one.sample(100, seed=3)
    assert np.array_equal(y, np.abs(x @ [1, 2, 4])) and one.is_uniform and verify_sparsity(one.net).max_active == 1
    again, noisy = one.sample(100, seed=3, noise=0.5)
    assert np.array_equal(again, x) and 0.3 < np.std(noisy - y) < 0.7
    hard = lwr_instance(5, 2, [1, 2])
    points = hard.support()
    assert len(points) == 25 and not hard.is_uniform
    assert len(hard.sample(50)[0]) == 50


def test_sampled_sparsity_is_a_lower_bound_and_says_so() -> None:
    net = parity_net(3, n=30).net
    report = verify_sparsity(net, samples=1000)
    assert not report.exact and report.domain == "random points" and "lower bound" in str(report)
    rows = verify_sparsity(net, cube.random_points(10, 30, seed=0))
    assert not rows.exact and rows.domain == "rows" and rows.points == 10


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: SparseActivationNet([[1.0]], [0.0, 1.0], [1.0]), ShapeError, "as many thresholds"),
        (lambda: SparseActivationNet([[np.nan]], [0.0], [1.0]), DataError, "NaN or infinity"),
        (lambda: SparseActivationNet([1.0], [0.0], [1.0]), ShapeError, "1 axes, 2 are needed"),
        (lambda: parity_net(2).net(np.ones((1, 3))), ShapeError, "2 inputs, got rows of 3"),
        (lambda: junta_net([1, 2, 3]), DataError, r"2\^p values, got 3"),
        (lambda: junta_net([1, 2], amplitude=3), ConfigError, "amplitude"),
        (lambda: junta_net([1, 2, 3, 4], n=1), ConfigError, "raise n"),
        (lambda: parity_net(0), ConfigError, "number of bits, is a whole number from 1 to 24"),
        (lambda: index_net(20), ConfigError, "1 to 12"),
        (lambda: gated_net(2, 0), ConfigError, "number of data bits, is a whole number of at least 1"),
        (lambda: lifted_parity(3, [3]), ConfigError, "different bits from 0 to 2"),
        (lambda: lwr_instance(6, 4, [1], rounding="mod"), ConfigError, "common factor"),
        (lambda: lwr_instance(4, 5, [1]), ConfigError, "2 <= p <= q"),
        (lambda: random_sparse_net(4, 5), ConfigError, "either k"),
        (lambda: random_sparse_net(30, 50, k=2), ConfigError, "Enumerating"),
        (lambda: cluster_net(3, kind="cells"), ConfigError, r"q = 2\^p"),
        (lambda: cluster_net(4, kind="cells", radius=2.0), ConfigError, "cells were asked for"),
        (lambda: verify_sparsity(parity_net(2).net, np.empty((0, 2))), DataError, "no rows"),
        (lambda: parity_net(2).sample(-1), ConfigError, "at least 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(make: object, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        make()  # type: ignore[operator]
