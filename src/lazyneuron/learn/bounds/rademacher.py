"""Rademacher complexity of the class under any input law, and what it says about generalisation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from lazyneuron.core.arguments import check_choice, check_switch, described
from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds.bound import CONJECTURE, OURS, QUOTED, TEXTBOOK, UNREVIEWED, Bound
from lazyneuron.learn.bounds.dichotomies import log_dichotomies
from lazyneuron.learn.bounds.sensitivity import check_class
from lazyneuron.learn.checks import count, positive, probability, upper

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

    Raises:
        ConfigError: a number is out of range, or k exceeds s.
    """

    n: int
    s: int
    k: int
    norm: float = 1.0
    bias: float = 0.0
    radius: float = 1.0

    def __post_init__(self) -> None:
        k, norm, bias, n, s = check_class(self.k, self.norm, bias=self.bias, n=self.n, s=self.s)
        radius = positive(self.radius, "R")
        for name, value in {"n": n, "s": s, "k": k, "norm": norm, "bias": bias, "radius": radius}.items():
            object.__setattr__(self, name, value)

    @property
    def slope(self) -> float:
        """``A = W R``."""
        return self.norm * self.radius

    @property
    def largest(self) -> float:
        """``k M`` with ``M = A + B``: no value is larger."""
        return float(self.k) * (self.slope + self.bias)


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
    m = count(rows, "The number of rows")
    a, b, k = check_of(of).slope, of.bias, of.k
    root = math.sqrt(of.s / m) * math.sqrt(k)
    over = upper(lambda: k * max(b - a, 0.0) / math.sqrt(m))  # bias clipping: only min(A, B) of the bias matters
    law: tuple[str, ...] = ("inputs of length at most R", _PROMISE)
    if kind == "trivial":
        return Bound(value=of.largest, assumptions=law, source="|h| <= kM", provenance=TEXTBOOK, vacuous=True)
    dense = upper(lambda: 2 * of.s * (a + b) / math.sqrt(m))
    if kind == "dense":
        return _against(dense, of, ("inputs of length at most R",), "sum of single neurons", TEXTBOOK)
    if kind == "vc":
        log = log_dichotomies(m, of.n)
        first, beside = a * (1 + math.sqrt(2 * log)), math.sqrt(2 * (log + math.log(2)))
        value = min(root * (first + b * beside), root * (first + min(a, b) * beside) + over)
        return _against(value, of, law, "D10", OURS)
    if kind == "lsjgh":
        chain = lsjgh_constant() * root * math.log(2 * m) ** 1.5
        value = min(upper(lambda: (a + min(a, b)) * min(k, chain) + over), of.largest, dense)
        return _against(value, of, law, _MANUSCRIPT, UNREVIEWED)
    if kind == "adkm":
        inside = log_units(of) + math.log(m)
        if inside <= 0:
            raise ConfigError(
                f"Theorem 19 says nothing where k m (R + B) <= 1, got {math.exp(inside):g}; take more rows, or scale "
                "the inputs."
            )
        value = upper(lambda: (a + b) * root * math.sqrt(of.n * inside))
        law = (*law, "the hidden constant is 1")
        return _against(value, of, law, "Awasthi et al. 2024, Theorem 19", QUOTED)
    if kind == "conjecture":
        law = (*law, "Conjecture 20 holds, with its constant 1")
        value = upper(lambda: (a + b) * root)
        return _against(value, of, law, "Awasthi et al. 2024, Conjecture 20", CONJECTURE)
    q = min(of.s // k, m)
    if q > of.n:
        raise ConfigError(f"The lower bound needs min(s / k, m) <= n, got {q:.9g} and n = {of.n:.9g}.")
    value = (a * min(k, root) + k * (b / math.sqrt(m))) / (4 * math.sqrt(2))
    return Bound(value=value, assumptions=("some input law",), source=_MANUSCRIPT, provenance=UNREVIEWED)


def check_of(of: object) -> Class:
    """The class, if it is one.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(of, Class):
        raise ConfigError(f"A class of networks is a Class, got {described(of)}; make one with Class(n=, s=, k=).")
    return of


def log_units(of: Class) -> float:
    """``ln(k (R + B))``, on which Theorem 19's logarithm depends."""
    return math.log(of.k) + math.log(of.radius + of.bias) if of.radius + of.bias < math.inf else math.inf


def _against(value: float, of: Class, law: tuple[str, ...], source: str, provenance: object) -> Bound:
    return Bound(
        value=value,
        assumptions=law,
        source=source,
        provenance=provenance,  # type: ignore[arg-type]
        vacuous=value >= of.largest,
    )


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
    check_switch("realizable", realizable)
    chosen, m, delta = check_kinds(kinds), count(rows, "The number of rows"), probability(delta, "delta")
    found = min((rademacher(kind, of, rows=m) for kind in chosen), key=lambda bound: bound.value)
    top, span = of.largest, loss_range(of)
    factor = 2 if realizable else 4
    log = (0 if realizable else math.log(2)) - math.log(delta)
    labels = "labels of a network of the class" if realizable else "labels within [-kM, kM]"
    value = upper(lambda: factor * 2 * top * found.value + factor / 2 * span * math.sqrt(log / 2 / m))
    return Bound(
        value=value,
        assumptions=tuple(dict.fromkeys((*found.assumptions, _PROMISE, *_LEARNING, labels))),
        failure_probability=delta,
        source=f"contraction over {found.source}",
        provenance=found.provenance,
        vacuous=value >= span,
    )


def loss_range(of: Class) -> float:
    """``2 (k M)^2``: no half-squared loss of values and labels within [-k M, k M] is larger."""
    return upper(lambda: 2 * of.largest**2)


def check_kinds(kinds: object) -> tuple[str, ...]:
    """The kinds, if they are upper bounds.

    Raises:
        ConfigError: they are not, none, or one text.
    """
    known = KINDS[:-1]
    if isinstance(kinds, str) or not isinstance(kinds, Sequence):
        raise ConfigError(f"`kinds` is a tuple of some of {', '.join(known)}, got {described(kinds)}.")
    if not kinds or any(kind not in known for kind in kinds):
        raise ConfigError(f"Upper bounds are of kind {', '.join(known)}, got {list(kinds)}.")
    return tuple(kinds)
