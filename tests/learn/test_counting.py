"""Dichotomies and the majority's gap, against exact arithmetic, at every size."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import numpy as np
import pytest

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds import majority_gap
from lazyneuron.learn.bounds.dichotomies import log_dichotomies


def exact_log(points: int, n: int) -> float:
    term = total = 1
    for i in range(1, min(n, points - 1) + 1):
        term = term * (points - i) // i
        total += term
    return math.log(2 * total)


def test_dichotomies_are_never_too_few_and_hardly_too_many() -> None:
    generator = np.random.default_rng(0)
    for n in (0, 1, 2, 7, 60, 255, 256, 257, 258, 700):
        near = [n + 1, n + 2, n + 3, 2 * n, 2 * n + 1, 2 * n + 2, 2 * n + 3, 2 * n + 40, 5 * n + 9]
        far = [10**6, 10**20] if n < 300 else []
        for points in {*near, *far, *generator.integers(n + 2, 4 * n + 20, 20).tolist()} - {0}:
            found, exact = log_dichotomies(points, n), exact_log(points, n)
            assert exact <= found <= exact * (1 + 1e-12), (points, n)


def test_many_dichotomies_are_counted_in_no_time_and_fall_as_a_share() -> None:
    begin = time.process_time()
    for n in (3_000_000, 10**9, 10**15, 10**200):
        previous = math.log(2) * (1 + 1e-12)
        for share in (Fraction(1, 2), Fraction(3, 2), Fraction(199, 100), Fraction(21, 10), 10, 10**6):
            points = int(n * share) + 2
            found = log_dichotomies(points, n) / points
            assert 0 < found <= previous
            previous = found * (1 + 1e-12)
    assert time.process_time() - begin < 5  # they took seconds each, and memory, or were more than could be
    n = 3_000_000  # at twice as many points as inputs and 2 more, by symmetry exactly half of all subsets
    assert log_dichotomies(2 * n + 2, n) == pytest.approx((2 * n + 1) * math.log(2), rel=1e-13)


@pytest.mark.parametrize(("q", "m"), [(1, 9), (1, 10), (2, 40), (3, 300), (50, 60), (700, 20)])
def test_the_majority_gap_is_the_sum(q: int, m: int) -> None:
    total = Fraction(0)
    for j in range(1, m + 1):
        chance = Fraction(math.comb(m, j) * (q - 1) ** (m - j), q**m)
        total += chance * Fraction(j * math.comb(j - 1, (j - 1) // 2), 2 ** (j - 1))
    assert majority_gap(q, m) == pytest.approx(float(total * q / (2 * m)), rel=1e-12)


def test_the_majority_gap_of_many_rows() -> None:
    for q, m in ((1, 10**18), (3, 10**8), (1000, 10**9)):
        assert majority_gap(q, m) == pytest.approx(math.sqrt(q / (2 * math.pi * m)), rel=q / m + 1e-9)
    with pytest.raises(ConfigError, match=r"about 1e\+12 terms|terms, at most 4194304"):
        majority_gap(2, 10**24)
