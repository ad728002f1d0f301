"""The exact maximum of active neurons, against enumeration and structure."""

from __future__ import annotations

import numpy as np
import pytest

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.learn import SparseActivationNet, cube, most_active, verify_sparsity
from lazyneuron.learn.instances import code_net, gated_net, hamming_code, index_net, parity_net


def test_it_is_what_enumeration_counts() -> None:
    generator = np.random.default_rng(0)
    for _ in range(25):
        n, s = int(generator.integers(1, 8)), int(generator.integers(1, 10))
        whole = generator.random() < 0.5
        weight = generator.integers(-2, 3, (s, n)).astype(float) if whole else generator.standard_normal((s, n))
        threshold = generator.integers(-1, 3, s).astype(float) if whole else generator.normal(0.5, 1, s)
        net = SparseActivationNet(weight * (0.1 if whole else 1.0), threshold * (0.1 if whole else 1.0), np.ones(s))
        found = most_active(net)
        assert found.exact and found.found == verify_sparsity(net).max_active
        assert net.active_counts(found.point[None])[0] == found.found


@pytest.mark.parametrize(
    "one", [parity_net(4, k=2, norm=0.3), index_net(3), code_net(hamming_code(3), norm=0.7)], ids=lambda i: i.name
)
def test_ties_are_silent(one: object) -> None:
    found = most_active(one.net)  # pre-activations of exactly 0 everywhere
    assert found.exact and found.found == one.max_active and "exactly" in str(found)


def test_beyond_enumeration_the_structure_is_found() -> None:
    one = gated_net(3, 40, k=2, mode="independent", seed=1)
    found = most_active(one.net)
    assert found.exact and found.found <= one.max_active == 2


def test_a_rare_coincidence_is_found_that_samples_miss() -> None:
    n = 40
    first = np.zeros((3, n))
    first[0, :25], first[1, 15:], first[2] = 1, -1, 1
    net = SparseActivationNet(first, [24.0, 24.0, 39.0], np.ones(3))  # each fires on few of 2^40 points
    assert verify_sparsity(net, samples=2000).max_active == 0
    found = most_active(net)
    assert (found.found, found.limit) == (2, 2)  # 0 and 1 need opposite bits; where 2 fires, 0 does too


def test_stopped_early_it_says_between_which_numbers() -> None:
    generator = np.random.default_rng(0)
    net = SparseActivationNet(generator.standard_normal((80, 40)), np.full(80, 7.0), np.ones(80))
    found = most_active(net, limit_s=0.3)
    assert not found.exact and found.gap == found.limit - found.found > 0
    assert 0 < found.found == net.active_counts(found.point[None])[0] and "between" in str(found)
    assert found.seconds < 10


def test_neurons_that_never_or_always_fire_need_no_solver() -> None:
    net = SparseActivationNet([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], [2.0, -2.0, -1e9], [1.0, 1.0, 1.0])
    found = most_active(net)
    assert (found.found, found.limit) == (2, 2)
    with pytest.raises(ConfigError, match="limit_s"):
        most_active(net, limit_s=0.0)


def on_a_unit(generator: np.random.Generator, kind: str) -> SparseActivationNet:
    """Small weights, and thresholds that some point attains exactly, or nearly so."""
    n, s = int(generator.integers(1, 8)), int(generator.integers(1, 8))
    weight = generator.integers(-6, 7, (s, n)).astype(float)
    if kind == "dyadic":
        weight /= 2.0 ** generator.integers(0, 6, (s, n))
    elif kind == "decimal":
        weight = np.round(generator.standard_normal((s, n)), int(generator.integers(1, 3)))
    elif kind == "none":
        weight = generator.standard_normal((s, n)) * generator.choice([1, np.pi], (s, 1))
    attained = (weight * (1 - 2 * generator.integers(0, 2, (s, n)))).sum(axis=1)
    return SparseActivationNet(weight, attained - 0.05 * (generator.random(s) < 0.3), np.ones(s))


@pytest.mark.parametrize("kind", ["whole", "dyadic", "decimal", "none"])
def test_ties_leave_no_gap_whatever_the_unit_of_the_weights(kind: str) -> None:
    generator = np.random.default_rng(7)
    for _ in range(60):
        net = on_a_unit(generator, kind)
        truth = int(max(net.active_counts(cube.points(net.n))))
        found = most_active(net)
        assert (found.found, found.limit) == (truth, truth)


@pytest.mark.parametrize(
    ("weight", "threshold", "truth"),
    [
        ([2.0, 3.0], 5.0, 0),
        ([2.0, 3.0], 4.9, 1),
        ([0.1] * 3, 0.3, 0),
        ([0.1] * 3, 0.29, 1),
        ([np.pi, np.e], np.pi + np.e, 0),  # no common unit: the solver's point is counted
        ([12345.0, 10007.0, 1.0], 22353.0, 0),  # one, but more than 10^4 of it
        ([1e300, 1e-300], 0.0, 1),
        ([1e300, 1e300], 2e300, 0),
        ([1e-300, 1e-300], 1e300, 0),
        ([1e-300], -1e300, 1),
        ([5e-324, 5e-324], 0.0, 1),
    ],
)
def test_one_neuron_by_hand(weight: list[float], threshold: float, truth: int) -> None:
    found = most_active(SparseActivationNet([weight], [threshold], [1.0]))
    assert (found.found, found.limit) == (truth, truth)


def test_what_cannot_be_asked_is_one_sentence() -> None:
    net = parity_net(2).net
    for call, said in (
        (lambda: most_active(None), "A network is a SparseActivationNet, got None"),
        (lambda: most_active(parity_net(2)), "got Instance; of an instance pass its `net`"),
        (lambda: most_active(net, limit_s="5"), "limit_s is a number, got '5'"),
        (lambda: most_active(net, seed=-1), "A seed is a whole number of at least 0, got -1"),
    ):
        with pytest.raises(ConfigError, match=said):
            call()
    with pytest.raises(DataError, match="overflow"):
        most_active(SparseActivationNet([[1.7e308, 1.7e308]], [0.0], [1.0]))
