"""Rademacher complexity of the class under any input law, and what it says about generalisation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds.bound import CONJECTURE, OURS, QUOTED, TEXTBOOK, UNREVIEWED, Bound
from lazyneuron.learn.checks import at_least, positive, probability

KINDS = ("trivial", "dense", "vc", "lsjgh", "adkm", "conjecture", "lower")
_PROMISE = "at most k neurons active on the support"
_LEARNING = ("rows drawn independently from one law", "the learner minimises the empirical risk over the class")
_MANUSCRIPT = "Li, Sha, Jiang, Gao, Han, manuscript"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Class:
    """A class of networks on inputs of bounded length.

    Attributes:
        n: inputs.
        s: neurons.
        k: active at once.
        norm: W; bias: B; radius: R, the largest Euclidean length of an input.
    """

    n: int
    s: int
    k: int
    norm: float = 1.0
    bias: float = 0.0
    radius: float = 1.0

    def __post_init__(self) -> None:
        at_least(self.n, 1, "n"), at_least(self.s, 1, "s"), at_least(self.k, 1, "k")
        at_least(self.norm, 0, "W"), at_least(self.bias, 0, "B"), positive(self.radius, "R")
        if self.k > self.s:
            raise ConfigError(f"No more than all neurons are active: k = {self.k} exceeds s = {self.s}.")

    @property
    def slope(self) -> float:
        """``A = W R``."""
        return float(self.norm * self.radius)

    @property
    def largest(self) -> float:
        """``k M`` with ``M = A + B``: no value is larger."""
        return float(self.k * (self.slope + self.bias))


def log_dichotomies(points: int, n: int) -> float:
    """``ln`` of ``2 sum over i <= n of C(points - 1, i)``: how many ways affine functions split points, at most.

    Source: Cover (1965).
    """
    if points - 1 <= n:
        return points * math.log(2)
    factors = np.log((points - 1) - np.arange(n, dtype=np.float64)) - np.log(np.arange(1, n + 1))
    logs = np.concatenate([[0.0], np.cumsum(factors)])
    top = float(logs.max())
    return math.log(2) + top + math.log(float(np.exp(logs - top).sum()))


def lsjgh_constant() -> float:
    """``C_0 = (6 sqrt(320) + 6) / ln 2 + (1 + 36 sqrt(ln 2)) / (ln 2)^(3/2)``."""
    two = math.log(2)
    return (6 * math.sqrt(320) + 6) / two + (1 + 36 * math.sqrt(two)) / two / math.sqrt(two)


def rademacher(kind: str, of: Class, *, rows: int) -> Bound:
    """A bound on the empirical Rademacher complexity of a class on m samples.

    Args:
        kind: ``"trivial"`` (k M), ``"dense"`` (2 s M / sqrt(m), ignores sparsity), ``"vc"`` (D10), ``"lsjgh"``
            (an unreviewed manuscript), ``"adkm"`` (Theorem 19 as printed, ``(A + B) sqrt(s n k ln(k m (R + B)) / m)``
            with its constant as 1), ``"conjecture"`` (Conjecture 20, ``(A + B) sqrt(s k / m)``: not proved), or
            ``"lower"`` (the manuscript's lower bound, for some input law).
        of: the class.
        rows: m.

    Raises:
        ConfigError: the kind is unknown, m is below 1, or Theorem 19's logarithm, which depends on the units of x, is
            not above 0.

    Source: ours, D10 (``"vc"``); Li, Sha, Jiang, Gao, Han (``"lsjgh"``, ``"lower"``); Awasthi, Dikkala, Kamath, Meka
        (2024), Theorem 19 (eq. 15) and Conjecture 20.
    """
    check_choice("A kind", kind, KINDS)
    m = at_least(rows, 1, "A number of samples")
    a, b, root = of.slope, of.bias, math.sqrt(of.s * of.k / m)
    over = of.k * max(b - a, 0.0) / math.sqrt(m)  # bias clipping: only min(A, B) of the bias matters
    law: tuple[str, ...] = ("inputs of length at most R", _PROMISE)
    if kind == "trivial":
        return Bound(value=of.largest, assumptions=law, source="|h| <= kM", provenance=TEXTBOOK, vacuous=True)
    if kind == "dense":
        value = 2 * of.s * (a + b) / math.sqrt(m)
        return _against(value, of, ("inputs of length at most R",), "sum of single neurons", TEXTBOOK)
    if kind == "vc":
        log = log_dichotomies(int(m), of.n)
        first = a * (1 + math.sqrt(2 * log))
        plain = root * (first + b * math.sqrt(2 * (log + math.log(2))))
        clipped = root * (first + min(a, b) * math.sqrt(2 * (log + math.log(2)))) + over
        return _against(min(plain, clipped), of, law, "D10", OURS)
    if kind == "lsjgh":
        chain = lsjgh_constant() * root * math.log(2 * m) ** 1.5
        value = (a + min(a, b)) * min(of.k, chain) + over
        value = min(value, of.largest, 2 * of.s * (a + b) / math.sqrt(m))
        return _against(value, of, law, _MANUSCRIPT, UNREVIEWED)
    if kind == "adkm":
        inside = of.k * m * (of.radius + b)
        if inside <= 1:
            raise ConfigError(f"Theorem 19 says nothing where k m (R + B) <= 1, got {inside:g}; scale the inputs.")
        value = (a + b) * root * math.sqrt(of.n * math.log(inside))
        law = (*law, "the hidden constant is 1")
        return _against(value, of, law, "Awasthi et al. 2024, Theorem 19", QUOTED)
    if kind == "conjecture":
        law = (*law, "Conjecture 20 holds, with its constant 1")
        return _against((a + b) * root, of, law, "Awasthi et al. 2024, Conjecture 20", CONJECTURE)
    q = min(of.s // of.k, int(m))
    if q > of.n:
        raise ConfigError(f"The lower bound needs min(s / k, m) <= n, got {q} and n = {of.n}.")
    value = (a * min(of.k, root) + of.k * b / math.sqrt(m)) / (4 * math.sqrt(2))
    return Bound(value=value, assumptions=("some input law",), source=_MANUSCRIPT, provenance=UNREVIEWED)


def _against(value: float, of: Class, law: tuple[str, ...], source: str, provenance: object) -> Bound:
    return Bound(
        value=value,
        assumptions=law,
        source=source,
        provenance=provenance,  # type: ignore[arg-type]
        vacuous=value >= of.largest,
    )


def majority_gap(q: int, rows: int) -> float:
    """Exact 0-1 generalisation gap of the majority rule on q equally likely clusters with random labels.

    ``(q / 2m) E[J C(J - 1, floor((J - 1) / 2)) / 2^(J - 1)]`` with ``J ~ Bin(m, 1/q)``; times ``2 k A`` it is the
    Rademacher complexity of the clusters.

    Raises:
        ConfigError: a number is below 1.

    Source: ours.
    """
    at_least(q, 1, "q"), at_least(rows, 1, "A number of samples")
    return q / (2 * rows) * sum(p * _mean_distance(j) for j, p in _binomial(rows, 1 / q))


def _mean_distance(j: int) -> float:
    """``E |sum of j signs|``."""
    if j == 0:
        return 0.0
    half = (j - 1) // 2
    log = math.lgamma(j) - math.lgamma(half + 1) - math.lgamma(j - half) - (j - 1) * math.log(2)
    return j * math.exp(log)


def _binomial(m: int, p: float) -> list[tuple[int, float]]:
    if p == 1:
        return [(m, 1.0)]
    reach = 12 * math.sqrt(m * p * (1 - p)) + 30
    low, high = max(0, int(m * p - reach)), min(m, int(m * p + reach))
    log = [
        math.lgamma(m + 1) - math.lgamma(j + 1) - math.lgamma(m - j + 1) + j * math.log(p) + (m - j) * math.log1p(-p)
        for j in range(low, high + 1)
    ]
    return [(low + i, math.exp(value)) for i, value in enumerate(log)]


def generalization(
    of: Class, rows: int, *, delta: float, realizable: bool = True, kinds: Sequence[str] = ("trivial", "dense", "vc")
) -> Bound:
    """Half-squared loss of the empirical risk minimiser: ``2 L U + b sqrt(ln(1/delta) / 2m)``, or the agnostic excess.

    The loss is ``(value - label)^2 / 2``, whose slope is at most L = 2 k M and which is at most b = 2 (k M)^2 where
    values and labels lie within [-k M, k M]. U is the least of the chosen upper bounds; what is unreviewed, printed
    without its constant, or a conjecture is taken only when asked for.

    Args:
        of: the class.
        rows: m.
        delta: failure probability.
        realizable: labels come from the class without noise; otherwise the value ``4 L U + 2 b sqrt(ln(2/delta) /
            2m)`` is what the loss exceeds the best of the class by.
        kinds: which upper bounds.

    Raises:
        ConfigError: delta is out of range, or a kind is no upper bound.

    Assumes: rows drawn independently from one law, whatever it is; the promise of k on its whole support, since L and b
    rest on it even where U does not; labels within [-k M, k M]; a learner that minimises the empirical risk over the
    class, which no learner of this library does but :func:`cluster_erm` for clusters.

    Source: textbook symmetrisation and contraction; U as named.
    """
    if not kinds or any(kind not in KINDS or kind == "lower" for kind in kinds):
        raise ConfigError(f"Upper bounds are of kind {', '.join(KINDS[:-1])}, got {list(kinds)}.")
    found = min((rademacher(kind, of, rows=rows) for kind in kinds), key=lambda bound: bound.value)
    top = of.largest
    slope, span = 2 * top, 2 * top**2
    factor = 2 if realizable else 4
    log = math.log((1 if realizable else 2) / probability(delta, "delta"))
    labels = "labels of a network of the class" if realizable else "labels within [-kM, kM]"
    value = factor * slope * found.value + factor / 2 * span * math.sqrt(log / (2 * rows))
    return Bound(
        value=value,
        assumptions=tuple(dict.fromkeys((*found.assumptions, _PROMISE, *_LEARNING, labels))),
        failure_probability=delta,
        source=f"contraction over {found.source}",
        provenance=found.provenance,
        vacuous=value >= span,
    )
