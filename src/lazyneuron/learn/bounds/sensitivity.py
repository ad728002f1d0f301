"""Bounds on the average sensitivity of a sparsely activated network."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds.bound import OURS, SPARSE_EVERYWHERE, UNIFORM, Bound
from lazyneuron.learn.checks import at_least, count, finite_array, share, upper


def phi(p: float) -> float:
    """``p sqrt(ln(1/p))`` on [0, 1], 0 at both ends.

    A halfspace g of n bits with ``Pr[g = 1] = p`` has ``sum_i Pr[g(x) != g(x flipped at i)] <= 2 sqrt(2 n) phi(p)``, so
    that one random bit is noticed with probability at most ``2 sqrt(2 / n) phi(p)``.

    Raises:
        ConfigError: p lies outside [0, 1].

    Source: the level-1 inequality; see D4 in the documentation.
    """
    p = share(p, "A probability")
    return p * math.sqrt(-math.log(p)) if 0 < p < 1 else 0.0


def phi_capped(p: float) -> float:
    """:func:`phi` up to its maximum at ``exp(-1/2)``, constant beyond: nondecreasing and concave."""
    return phi(min(p, math.exp(-0.5)))


def as_sparse(k: int, norm: float, *, s: int | None = None) -> Bound:
    """D1: ``AS(h) <= 4 k^2 W^2``, and ``min(2k, s)^2 W^2`` when the width is given.

    Args:
        k: active neurons.
        norm: W, the largest norm of a rebalanced weight row.
        s: number of neurons.

    Raises:
        ConfigError: a number is out of range.

    Assumes: x uniform on the cube, k-sparse everywhere. Holds: always; attained by :func:`parity_net`.

    Source: ours, D1.
    """
    units, w = 2 * count(k, "k"), at_least(norm, 0, "W")
    if s is not None:
        units = min(units, count(s, "s"))
    value = upper(lambda: units**2 * w**2)
    return Bound(value=value, assumptions=(UNIFORM, SPARSE_EVERYWHERE), source="D1", provenance=OURS)


def as_mean_square(mean_square_active: float, norm: float) -> Bound:
    """``AS(h) <= 4 W^2 E[K^2]``, without the promise that few neurons are active everywhere.

    Args:
        mean_square_active: ``E K^2`` under the uniform law itself, or an upper bound; a mean over samples is none.
        norm: W.

    Raises:
        ConfigError: a number is negative.

    Source: ours, corollary of D2.
    """
    w, square = at_least(norm, 0, "W"), at_least(mean_square_active, 0, "E K^2")
    value = upper(lambda: 4 * w**2 * square)
    law = (UNIFORM, "E K^2 is at most the number given")
    return Bound(value=value, assumptions=law, source="D2, corollary", provenance=OURS)


def as_mostly_sparse(k: int, norm: float, *, s: int, exceeding: float) -> Bound:
    """Remark 11 in numbers: ``AS(h) <= 4 W^2 (k^2 + (s^2 - k^2) Pr[K > k])``.

    So a promise of k that fails with probability at most ``(k / s)^2`` costs a factor of 2 and no more.

    Args:
        k: active neurons, on most inputs.
        norm: W.
        s: neurons.
        exceeding: ``Pr[K > k]`` under the uniform law itself, or an upper bound; a share of samples is none.

    Raises:
        ConfigError: a number is out of range.

    Source: Awasthi, Dikkala, Kamath, Meka (2024), Remark 11; the numbers are ours, a corollary of D2.
    """
    chance, w = share(exceeding, "Pr[K > k]"), at_least(norm, 0, "W")
    active, width = check_active(k, s)
    value = upper(lambda: 4 * w**2 * (active**2 + (width**2 - active**2) * chance))
    law = (UNIFORM, "Pr[K > k] is at most the number given")
    return Bound(value=value, assumptions=law, source="Remark 11, from D2", provenance=OURS)


def as_product(k: int, norm: float, *, means: object = None) -> Bound:
    """D5: independent coordinates in [-1, 1] (``8 k^2 W^2``), or bits with these means (``4 (1 + max |mu|) k^2 W^2``).

    Args:
        k: active neurons.
        norm: W.
        means: of the bits, shape (n,).

    Raises:
        ConfigError: a number is out of range.
        DataError, ShapeError: the means are no row of finite numbers.

    Source: ours, D5 (i) and (ii).
    """
    factor, law = 8.0, "independent coordinates in [-1, 1]"
    if means is not None:
        mu = float(np.abs(finite_array(means, "means", ndim=1)).max(initial=0))
        if mu > 1:
            raise ConfigError(f"Means of bits lie in [-1, 1], got {mu}.")
        factor, law = 4 * (1 + mu), "independent bits with the given means"
    active, w = count(k, "k"), at_least(norm, 0, "W")
    value = upper(lambda: factor * active**2 * w**2)
    return Bound(
        value=value, assumptions=(law, "at most k neurons active on the support"), source="D5", provenance=OURS
    )


def check_active(k: int, s: int) -> tuple[int, int]:
    """How many neurons are active, and how many there are.

    Raises:
        ConfigError: one is no count, or more are active than there are.
    """
    active, width = count(k, "k"), count(s, "s")
    if active > width:
        raise ConfigError(f"No more than all neurons are active: k = {active:.9g} exceeds s = {width:.9g}.")
    return active, width


def check_class(k: int, norm: float, *, bias: float, n: int, s: int) -> tuple[int, float, float, int, int]:
    """k, W, B, n and s as they are computed with.

    Raises:
        ConfigError: no class has such numbers.
    """
    active, width = check_active(k, s)
    return active, at_least(norm, 0, "W"), at_least(bias, 0, "B"), count(n, "n"), width


def total_phi(k: int, s: int) -> float:
    """The most that ``sum_j phi(p_j)`` can be for shares that add up to k: ``k sqrt(ln(s/k))``, ``.429 s`` for small s.

    Source: Jensen's inequality, as phi is concave; its maximum is at ``exp(-1/2)``.
    """
    return k * math.sqrt(math.log(s / k)) if s / k >= math.exp(0.5) else phi(math.exp(-0.5)) * s


def as_adkm(k: int, norm: float, *, bias: float, n: int, s: int) -> Bound:
    """The published route with explicit constants, for comparison; D1 is never worse.

    ``k^2 W^2 + 2 sqrt(2 n) c t^2 + n eta k^2 (W sqrt(n) + B)^2`` with ``t = k (B + W sqrt(2 ln(2 s / eta)))``; c is
    ``k sqrt(ln(s/k))``, or ``.429 s`` for s below ``sqrt(e) k``. It holds for every eta in (0, 1); the value is the
    least over eta = 10^-12, 10^-11.75, ..., 10^-0.25, so a bound like all of them, and not quite the least of them.

    Args:
        k: active neurons.
        norm: W.
        bias: B.
        n: inputs.
        s: neurons.

    Raises:
        ConfigError: a number is out of range.

    Source: Awasthi, Dikkala, Kamath, Meka (2024), Lemma 9; constants ours.
    """
    k, norm, bias, n, s = check_class(k, norm, bias=bias, n=n, s=s)
    c = total_phi(k, s)

    def total(eta: float) -> float:
        cut = k * (bias + norm * math.sqrt(2 * (math.log(2 * s) - math.log(eta))))
        rest = n * eta * k**2 * (norm * math.sqrt(n) + bias) ** 2
        return k**2 * norm**2 + 2 * math.sqrt(2 * n) * c * cut**2 + rest

    value = min(upper(partial(total, 10.0 ** (e / 4))) for e in range(-48, 0))
    return Bound(
        value=value,
        assumptions=(UNIFORM, SPARSE_EVERYWHERE),
        source="Awasthi et al. 2024, Lemma 9, constants explicit",
        provenance=OURS,
        vacuous=value >= upper(lambda: 4 * k**2 * norm**2),
    )
