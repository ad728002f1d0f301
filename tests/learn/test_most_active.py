"""The exact maximum of active neurons, against enumeration and structure."""

from __future__ import annotations

import numpy as np
import pytest

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn import SparseActivationNet, most_active, verify_sparsity
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
