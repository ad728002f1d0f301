"""Bounds against exact quantities of thousands of networks, worked cases, and the specification's tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.learn import (
    SparseActivationNet,
    average_sensitivity,
    cube,
    noise_sensitivity,
    sensitivity_bounds,
    sparsity,
    spectrum,
    verify_sparsity,
    weight_by_degree,
)
from lazyneuron.learn.bounds import (
    Class,
    active_phi,
    agnostic_excess,
    as_adkm,
    as_mean_square,
    as_product,
    as_sparse,
    batches_for,
    degree_adkm,
    degree_for,
    deviation_lmn,
    generalization,
    gram_failure,
    lsjgh_constant,
    majority_gap,
    noise_bound,
    phi,
    rademacher,
    risk_lmn,
    risk_ols,
    samples_lmn,
    samples_ols,
    tail_bound,
    tail_bound_sensitivity,
    tail_bound_width,
    typical_risk_ols,
)
from lazyneuron.learn.bounds.dichotomies import log_dichotomies
from lazyneuron.learn.instances import cluster_erm, parity_net, random_sparse_net
from lazyneuron.learn.instances.random_nets import _level

LOOSE = 1 + 1e-9


def random_net(generator: np.random.Generator) -> SparseActivationNet:
    """Of all kinds: whole, heavy-tailed, sparse weights; low, high and random thresholds."""
    n, s = int(generator.integers(1, 7)), int(generator.integers(1, 9))
    kind = generator.integers(0, 4)
    weight = generator.standard_normal((s, n))
    if kind == 1:
        weight = np.rint(2 * weight)
    elif kind == 2:
        weight = generator.standard_cauchy((s, n)).clip(-50, 50)
    elif kind == 3:
        weight *= generator.random((s, n)) < 0.4
    threshold = generator.normal(generator.uniform(-1, 3), 1, s)
    return SparseActivationNet(weight, threshold, generator.standard_normal(s))


def assert_bounds_hold(net: SparseActivationNet) -> float:
    """Every bound of D1 to D4 on one network, by enumeration; AS over D1."""
    ladder = sensitivity_bounds(net)
    weights = weight_by_degree(spectrum(net.table()))
    sensitivity, norm, k = average_sensitivity(weights), ladder.norm, ladder.k
    assert sensitivity <= min(ladder.c2, ladder.c3) * LOOSE + 1e-12
    assert max(ladder.c2, ladder.c3) <= ladder.c1 * LOOSE + 1e-12 and ladder.c1 <= ladder.c0 * LOOSE
    assert sensitivity <= as_sparse(k, norm, s=net.s).value * LOOSE + 1e-12
    assert ladder.c2 <= as_mean_square(ladder.sparsity.mean_square_active, norm).value * LOOSE + 1e-12
    for d in range(net.n + 1):
        above = weights[d + 1 :].sum()
        assert above <= tail_bound(d, k, norm=norm).value * LOOSE + 1e-12
        assert above <= tail_bound_sensitivity(d, sensitivity).value * LOOSE + 1e-12
        if d:
            assert above <= tail_bound_width(d, k, norm=norm, s=net.s).value * LOOSE + 1e-12
            assert above <= tail_bound_width(d, k, norm=norm, phi_value=ladder.phi).value * LOOSE + 1e-12
    for rho in (-1.0, 0.3, 0.9):
        assert noise_sensitivity(weights, rho) <= noise_bound(rho, k, norm=norm).value * LOOSE + 1e-12
    return sensitivity / as_sparse(k, norm).value if norm else 0.0


def test_every_bound_holds_on_ten_thousand_networks() -> None:
    generator = np.random.default_rng(1)
    ratios = [assert_bounds_hold(random_net(generator)) for _ in range(10_000)]
    assert 0.2 < max(ratios) <= LOOSE


def climb(n: int, s: int, *, seed: int, steps: int) -> float:
    """Local search for a network that breaks D1; the largest ratio that it reaches."""
    generator = np.random.default_rng(seed)
    weight, threshold = generator.standard_normal((s, n)), np.full(s, 0.5)
    outer, best = generator.choice([-1.0, 1.0], s), 0.0
    for step in range(steps):
        size = generator.choice([0.5, 0.1, 0.02, 0.004])
        w = weight + size * generator.standard_normal(weight.shape)
        b = threshold + size * generator.standard_normal(s)
        u = np.where(generator.random(s) < 0.1, -outer, outer)
        net = SparseActivationNet(w, b, u)
        k, norm = max(verify_sparsity(net).max_active, 1), net.norms()[0]
        ratio = average_sensitivity(weight_by_degree(spectrum(net.table()))) / as_sparse(k, norm).value
        assert ratio <= LOOSE, (seed, step)
        if ratio >= best:
            best, weight, threshold, outer = ratio, w, b, u
    return best


def test_an_adversary_comes_close_to_the_bound_and_not_above() -> None:
    assert max(climb(1, 2, seed=seed, steps=600) for seed in range(3)) > 0.95
    assert max(climb(2, 4, seed=seed, steps=600) for seed in range(3)) > 0.6


def test_a_patient_adversary_comes_closer() -> None:
    assert max(climb(2, 4, seed=seed, steps=6000) for seed in (0, 1, 5)) > 0.95


@pytest.mark.parametrize("p", [2, 3, 5, 8])
def test_parity_attains_the_bounds(p: int) -> None:
    for k, norm in ((1, 1.0), (3, 0.4)):
        net = parity_net(p, k=k, norm=norm).net
        ladder = sensitivity_bounds(net)
        whole = 4 * k**2 * norm**2
        assert [ladder.c0, as_sparse(k, norm).value] == pytest.approx([whole] * 2)
        weights = weight_by_degree(spectrum(net.table()))
        assert average_sensitivity(weights) == pytest.approx(whole)
        above = weights[p:].sum()
        assert above == pytest.approx(tail_bound(p - 1, k, norm=norm).value)
        if k == 1:
            ratio = above / tail_bound_width(p - 1, 1, norm=norm, s=2**p).value
            assert ratio == pytest.approx((1 - math.exp(-1)) / (2 * math.sqrt(math.log(2))), rel=1e-6)


def test_d4_of_the_parity_is_the_stated_share() -> None:
    assert (1 - math.exp(-1)) / (2 * math.sqrt(math.log(2))) == pytest.approx(0.380, abs=5e-4)


def halfspace_flips(weight: np.ndarray, threshold: float) -> tuple[float, float]:
    n = len(weight)
    g = (cube.points(n) @ weight > threshold).astype(float)
    index = np.arange(2**n)
    return float(g.mean()), sum(float(np.mean(g != g[index ^ (1 << i)])) for i in range(n))


def test_halfspaces_notice_few_bits() -> None:
    generator = np.random.default_rng(0)
    for _ in range(400):
        n = int(generator.integers(1, 9))
        p, flips = halfspace_flips(generator.standard_normal(n) ** 3, float(generator.normal(0, 2)))
        assert flips <= 2 * math.sqrt(2) * phi(p) * math.sqrt(n) * LOOSE + 1e-12
    assert phi(math.exp(-0.5)) == pytest.approx(0.4289, abs=1e-4) and phi(0.0) == phi(1.0) == 0


def test_halfspaces_under_noise() -> None:
    generator = np.random.default_rng(1)
    for _ in range(100):
        n, d = 7, int(generator.integers(1, 9))
        g = (cube.points(n) @ generator.standard_normal(n) > generator.normal(0, 2)).astype(float)
        differ = 4 * noise_sensitivity(weight_by_degree(spectrum(g)), 1 - 1 / d)
        assert differ <= 2 * math.sqrt(2) * phi(g.mean()) / math.sqrt(2 * d) * LOOSE + 1e-12


def test_biased_bits_and_product_laws() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        net = random_net(generator)
        n, mu = net.n, generator.uniform(-0.9, 0.9, net.n)
        x = cube.points(n).astype(float)
        chance = ((1 + x * mu) / 2).prod(1)
        table, index, total = net.table(), np.arange(2**n), 0.0
        for i in range(n):
            up, down = table[index & ~(1 << i)], table[index | (1 << i)]
            total += (chance * (1 - mu[i] ** 2) / 4 * (up - down) ** 2).sum()
        k, norm = max(verify_sparsity(net).max_active, 1), net.norms()[0]
        assert total <= as_product(k, norm, means=mu).value * LOOSE + 1e-12
    assert as_product(2, 3.0).value == 8 * 4 * 9 and as_product(1, 1.0, means=[0.0]).value == 4


def test_adkm_never_beats_d1() -> None:
    for n, s, k, norm, bias in itertools.product((5, 100), (10, 10**6), (1, 4), (0.5, 2.0), (0.0, 3.0)):
        assert as_adkm(k, norm, bias=bias, n=n, s=s).value >= as_sparse(k, norm).value


@pytest.mark.parametrize(
    ("n", "s", "k", "adkm", "first", "fourth"),
    [
        (100, 10**3, 1, (1.8e4, 1.8e6, 1.8e8), (3, 39, 399), (10, 46, 215)),
        (100, 10**3, 3, (1.2e8, 1.2e10, 1.2e12), (35, 359, 3599), (40, 188, 872)),
        (10**3, 10**6, 1, (1.8e5, 1.8e7, 1.8e9), (3, 39, 399), (13, 59, 276)),
    ],
)
def test_the_table_of_degrees(n: int, s: int, k: int, adkm: tuple, first: tuple, fourth: tuple) -> None:
    for error, published, d3, d4 in zip((1.0, 0.1, 0.01), adkm, first, fourth, strict=True):
        found = degree_adkm(error, k, norm=1.0, bias=1.0, n=n, s=s).value
        assert float(f"{found:.2g}") == pytest.approx(published, rel=0.06)
        assert degree_for(error, k, norm=1.0, rule="D3").value == d3
        assert degree_for(error, k, norm=1.0, s=s, rule="D4").value == d4
        best = degree_for(error, k, norm=1.0, n=n, s=s)
        assert best.value == min(d3, d4, n) and best.vacuous == (min(d3, d4) >= n)


@pytest.mark.parametrize(
    ("m", "n", "s", "k", "trivial", "dense", "vc", "lsjgh", "cluster", "root"),
    [
        (10**4, 20, 10**3, 1, 1, 20, 5.66, 1, 0.249, 0.316),
        (10**6, 20, 10**4, 4, 4, 20 * 1, 4.53, 4, 0.159, 0.200),
        (10**6, 20, 10**5, 1, 1, 200, 7.17, 1, 0.249, 0.316),
    ],
)
def test_the_table_of_rademacher_bounds(
    m: int, n: int, s: int, k: int, trivial: float, dense: float, vc: float, lsjgh: float, cluster: float, root: float
) -> None:
    of = Class(n=n, s=s, k=k)
    assert rademacher("trivial", of, rows=m).value == trivial
    assert rademacher("dense", of, rows=m).value == pytest.approx(dense)
    assert rademacher("vc", of, rows=m).value == pytest.approx(vc, abs=0.006)
    assert rademacher("vc", of, rows=m).vacuous
    assert rademacher("lsjgh", of, rows=m).value == pytest.approx(lsjgh)
    assert 2 * k * majority_gap(s // k, m) == pytest.approx(cluster, abs=6e-4)
    assert math.sqrt(s * k / m) == pytest.approx(root, abs=6e-4)


def test_where_d10_becomes_non_trivial() -> None:
    of = Class(n=20, s=1000, k=1)
    assert rademacher("vc", of, rows=480_000).vacuous and not rademacher("vc", of, rows=500_000).vacuous


def test_constants_and_clipping() -> None:
    assert lsjgh_constant() == pytest.approx(217.17, abs=0.005)
    wide = Class(n=5, s=10**4, k=1, bias=100.0)
    m = 10**8
    clipped = rademacher("vc", Class(n=5, s=10**4, k=1, bias=1.0), rows=m).value + 99 / math.sqrt(m)
    assert rademacher("vc", wide, rows=m).value == pytest.approx(clipped)
    assert rademacher("lower", Class(n=2000, s=1000, k=1), rows=10**4).value == pytest.approx(
        math.sqrt(0.1) / (4 * math.sqrt(2))
    )
    with pytest.raises(ConfigError, match="lower bound needs"):
        rademacher("lower", Class(n=20, s=1000, k=1), rows=10**4)


def dichotomies(points: np.ndarray) -> int:
    """Brute force: affine splits by linear programming."""
    from scipy.optimize import linprog

    m, found = len(points), 0
    for sign in itertools.product((-1, 1), repeat=m):
        a = -np.array(sign)[:, None] * np.hstack([points, np.ones((m, 1))])
        found += linprog(np.zeros(points.shape[1] + 1), A_ub=a, b_ub=-np.ones(m), bounds=(None, None)).success
    return found


def test_cover_counts_the_dichotomies() -> None:
    points = np.random.default_rng(0).standard_normal((7, 2))
    for m in (1, 3, 5, 7):
        assert dichotomies(points[:m]) == round(math.exp(log_dichotomies(m, 2)))
    assert round(math.exp(log_dichotomies(7, 2))) == 44
    for n in (1, 5, 20, 300):
        for m in (n + 2, 5000 + n, 10**14, 10**17, 10**20):
            exact = math.log(2 * sum(math.comb(m - 1, i) for i in range(n + 1)))
            assert log_dichotomies(m, n) == pytest.approx(exact, rel=1e-12)
    assert log_dichotomies(6000, 3) == pytest.approx(math.log(2 * sum(math.comb(5999, i) for i in range(4))), rel=1e-10)


@pytest.mark.parametrize(("q", "m"), [(1, 9), (4, 30), (50, 60)])
def test_the_majority_gap_is_exact(q: int, m: int) -> None:
    generator = np.random.default_rng(q)
    gaps = []
    for _ in range(4000):
        cluster, labels = generator.integers(0, q, m), generator.choice([-1, 1], m)
        rule = cluster_erm(cluster, labels, q)
        gaps.append(0.5 - np.mean(rule[cluster] != labels))
    assert np.mean(gaps) == pytest.approx(majority_gap(q, m), abs=4 * np.std(gaps) / math.sqrt(4000))


def test_sample_sizes_by_hand() -> None:
    assert samples_ols(10, 0.1).value == math.ceil(max(65.2 * math.log(200), 800))
    assert samples_ols(10, 0.1).failure_probability == 0.1
    assert gram_failure(10, 3000) == pytest.approx(10 * math.exp(-150 * (1 - math.log(2))))
    assert gram_failure(10, 3000, floor=0.8) == pytest.approx(10 * math.exp(-300 * (0.2 + 0.8 * math.log(0.8))))
    assert gram_failure(10, 3000, floor=1.0) == 1 == gram_failure(10, 5)
    assert risk_ols(0.1, 10, rows=100, noise=0.3).value == pytest.approx(0.1 + 4 * 10 * 0.4 / 100)
    assert (
        typical_risk_ols(0.1, 10, rows=110, noise=0.3) == pytest.approx(0.14)
        and typical_risk_ols(0.1, 10, rows=10) == math.inf
    )
    assert samples_lmn(10, 0.5, second_moment=2.0).value == 40
    assert risk_lmn(0.1, 10, rows=40, second_moment=2.0).value == pytest.approx(0.6)
    deviation = deviation_lmn(10, 0.1, rows=40, second_moment=4.0, largest=3.0).value
    assert deviation == pytest.approx(0.5 * (2 + 3 * math.sqrt(2 * math.log(10))))
    assert agnostic_excess(0.25, 0.01, features=10, rows=80).value == pytest.approx(1.5 * 0.36)
    found = batches_for(10, 0.1, residual=0.2, error=0.1)
    assert (found.count, found.rows) == (19, 5760)


def test_what_may_fail_with_certainty_is_vacuous() -> None:
    for rows, empty in ((100, True), (3000, False)):
        assert (
            risk_ols(0.1, 10, rows=rows).vacuous == agnostic_excess(0.1, 0.1, features=10, rows=rows).vacuous == empty
        )
    low = risk_ols(0.1, 10, rows=3000, floor=0.25)
    assert low.failure_probability == gram_failure(10, 3000, floor=0.25) < gram_failure(10, 3000) and not low.vacuous
    assert risk_ols(0.1, 10, rows=3000, floor=1.5).vacuous


def test_the_agnostic_error_is_whole_and_holds() -> None:
    """Labels outside of the class: the measured error of least squares itself, of which the best has most."""
    n, degree, m, trials = 6, 1, 400, 60
    generator = np.random.default_rng(0)
    target = cube.points(n)[:, 0] * cube.points(n)[:, 1].astype(float)  # no linear part: the best has error 1
    errors = []
    for _ in range(trials):
        rows = generator.integers(0, 2**n, m)
        x = cube.points(n)[rows]
        fit = np.linalg.lstsq(np.hstack([np.ones((m, 1)), x]), target[rows], rcond=None)[0]
        errors.append(np.mean((fit[0] + cube.points(n) @ fit[1:] - target) ** 2))
    bound = agnostic_excess(1.0, 0.0, features=n + degree, rows=m)
    assert 1 < np.mean(errors) <= bound.value == 1 + 4 * 7 / 400 and not bound.vacuous


def test_a_bound_names_what_its_numbers_have_to_be() -> None:
    assert "E K^2 is at most the number given" in as_mean_square(2.0, 1.0).assumptions
    assert "AS is at most the number given" in tail_bound_sensitivity(1, 2.0).assumptions
    assert "Phi is at most the number given" in tail_bound_width(1, 1, norm=1.0, phi_value=1.0).assumptions
    for bound in (samples_lmn(3, 0.5, second_moment=1.0), risk_lmn(0.1, 3, rows=9, second_moment=1.0)):
        assert "labels are not centred" in bound.assumptions
    for kinds in (("dense",), ("vc",)):  # L and b rest on the promise even where the complexity does not
        found = generalization(Class(n=3, s=10, k=1), 100, delta=0.1, kinds=kinds)
        assert found.assumptions.count("at most k neurons active on the support") == 1
        assert {"rows drawn independently from one law", "labels of a network of the class"} <= {*found.assumptions}
    agnostic = generalization(Class(n=3, s=10, k=1), 100, delta=0.1, realizable=False)
    assert "labels within [-kM, kM]" in agnostic.assumptions


def test_the_published_route_is_the_least_over_its_grid() -> None:
    n, s, k, norm, bias = 30, 500, 2, 1.5, 0.7

    def total(eta: float) -> float:
        t = k * (bias + norm * math.sqrt(2 * math.log(2 * s / eta)))
        c = k * math.sqrt(math.log(s / k))
        return k**2 * norm**2 + 2 * math.sqrt(2 * n) * c * t**2 + n * eta * k**2 * (norm * math.sqrt(n) + bias) ** 2

    found = as_adkm(k, norm, bias=bias, n=n, s=s).value
    assert found == pytest.approx(min(total(10 ** (e / 4)) for e in range(-48, 0)))
    assert found > min(total(e) for e in np.geomspace(1e-9, 0.9, 5000))  # not quite the least of all


def test_generalisation_uses_the_unreviewed_bound_only_when_asked() -> None:
    of = Class(n=3, s=10, k=1, radius=1.0)
    m = 10**6
    found = generalization(of, m, delta=0.1)
    upper = min(rademacher(kind, of, rows=m).value for kind in ("trivial", "dense", "vc"))
    assert found.value == pytest.approx(4 * upper + 2 * math.sqrt(math.log(10) / 2 / m))
    agnostic = generalization(of, m, delta=0.1, realizable=False)
    assert agnostic.value == pytest.approx(8 * upper + 4 * math.sqrt(math.log(20) / 2 / m))
    asked = generalization(Class(n=10**6, s=10**6, k=10**3), 10**12, delta=0.1, kinds=("lsjgh",))
    assert asked.provenance == "unreviewed manuscript"
    assert "ours" in str(as_sparse(1, 1.0)) and "VACUOUS" in str(rademacher("trivial", of, rows=5))


def test_the_ladder_estimated_is_near_the_exact_one_and_has_a_limit() -> None:
    small = random_sparse_net(10, 40, k=3, seed=0).net
    exact = sensitivity_bounds(small)
    wide = SparseActivationNet(np.hstack([small.weight, np.zeros((40, 12))]), small.threshold, small.outer)
    found = sensitivity_bounds(wide, k=3, samples=20_000)
    assert exact.exact and not found.exact and exact.c2_limit is None
    assert found.c2_limit.high >= exact.c2 >= 0
    assert [found.c0, found.c1, found.c2, found.c3] == pytest.approx([exact.c0, exact.c1, exact.c2, exact.c3], rel=0.15)
    assert exact.phi == pytest.approx(active_phi(np.linalg.norm(small.weight, axis=1), exact.sparsity.active_share))
    with pytest.raises(ConfigError, match="raise k"):
        sensitivity_bounds(small, k=1)
    assert _level(small.weight, 3) == small.threshold[0]


def test_a_ladder_is_exact_only_where_the_whole_cube_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    net = parity_net(3, n=6).net
    whole = sensitivity_bounds(net)
    assert whole.exact and whole.sparsity.exact and whole.promised and whole.least == pytest.approx(12)
    monkeypatch.setattr(sparsity, "_PRODUCTS", 100)  # as for a network too wide to enumerate
    some = sensitivity_bounds(net, samples=300)
    assert not some.exact and not some.sparsity.exact and not some.promised
    assert some.least == some.c2_limit.high > 12  # k was only seen, so C0 = 12 proves nothing
    promised = sensitivity_bounds(net, k=1, samples=300)
    assert promised.promised and promised.least == pytest.approx(12)


def test_weights_whose_squares_overflow_are_refused() -> None:
    with pytest.raises(DataError, match="Squares of weights overflow"):
        sensitivity_bounds(SparseActivationNet(np.full((2, 3), 1e200), [0.0, 0.0], [1.0, 1.0]))


def test_the_limit_counts_only_neurons_that_can_fire() -> None:
    net = parity_net(2, n=20).net
    idle = SparseActivationNet(np.vstack([net.weight, 1e6 * np.ones((1, 20))]), [*net.threshold, 3e7], [*net.outer, 1])
    assert sensitivity_bounds(idle, samples=500).c2_limit.high == pytest.approx(
        sensitivity_bounds(net, samples=500).c2_limit.high
    )


def test_the_gated_example_of_the_ladder() -> None:
    """C3 is what counts where weights are large and outputs are small."""
    from lazyneuron.learn.instances import gated_net

    ladder = sensitivity_bounds(gated_net(8, 4, gate=2.0, seed=0).net)
    assert ladder.c0 == pytest.approx(132) and ladder.c3 < 6 and ladder.least == ladder.c3


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: as_sparse(0, 1.0), "k is a whole number of at least 1, got 0"),
        (lambda: as_sparse(1, -1.0), "W is a finite number of at least 0"),
        (lambda: as_sparse(1, math.nan), "W is a finite"),
        (lambda: as_product(1, 1.0, means=[1.5]), r"lie in \[-1, 1\]"),
        (lambda: tail_bound(-1, 1, norm=1.0), "A degree"),
        (lambda: tail_bound_width(0, 1, norm=1.0, s=3), "A degree is a whole number of at least 1"),
        (lambda: tail_bound_width(1, 1, norm=1.0), "either the width s"),
        (lambda: noise_bound(2.0, 1, norm=1.0), "A correlation"),
        (lambda: degree_for(0.0, 1, norm=1.0), "error is a finite number above 0"),
        (lambda: degree_for(1.0, 1, norm=1.0, rule="D4"), "with the width s"),
        (lambda: degree_for(1e-320, 1, norm=1.0), "No finite degree"),
        (lambda: gram_failure(0, 5), "number of features"),
        (lambda: risk_ols(0.1, 3, rows=9, floor=-1.0), "floor is a finite number above 0"),
        (lambda: samples_ols(10, 1.0), "delta lies strictly between 0 and 1, got 1.0"),
        (lambda: samples_ols(0, 0.5), "number of features"),
        (lambda: rademacher("best", Class(n=1, s=1, k=1), rows=5), "A kind is one of"),
        (lambda: rademacher("vc", Class(n=1, s=1, k=1), rows=0), "number of rows"),
        (lambda: Class(n=1, s=1, k=2), "k = 2 exceeds s = 1"),
        (lambda: generalization(Class(n=1, s=1, k=1), 5, delta=0.1, kinds=("lower",)), "Upper bounds are"),
        (lambda: agnostic_excess(0.1, 0.1, features=3, rows=0), "at least 1, got 0"),
        (lambda: phi(2.0), "A probability"),
        (lambda: batches_for(3, 0.1, residual=0.1, error=-1.0), "error is a finite"),
    ],
)
def test_what_is_out_of_range_is_one_sentence(call: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        call()  # type: ignore[operator]
