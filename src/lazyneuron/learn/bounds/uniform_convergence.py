"""How many rows make empirical risk minimisation good under any input law."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

from lazyneuron.core.arguments import check_switch
from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds.bound import QUOTED, Bound
from lazyneuron.learn.bounds.rademacher import Class, check_kinds, check_of, generalization, log_units, loss_range
from lazyneuron.learn.checks import positive, probability, upper

_MOST = 2**200  # rows


def samples_erm(
    of: Class,
    error: float,
    delta: float,
    *,
    realizable: bool = True,
    kinds: Sequence[str] = ("trivial", "dense", "vc"),
) -> Bound:
    """Lemma 18 with its constants: how many rows make :func:`generalization` at most the error, as do all more rows.

    For each kind alone the least such number is taken, for ``"adkm"`` the least from ``e / (k (R + B))`` rows on: the
    printed logarithm is not above 0 for few rows, and the bound by it grows before it falls. The least of the kinds
    counts.

    Args:
        of: the class.
        error: of the half-squared loss.
        delta: failure probability.
        realizable, kinds: as in :func:`generalization`.

    Returns:
        The number of rows; vacuous where the error is at least ``2 (k M)^2``, the largest loss there is.

    Raises:
        ConfigError: a number is out of range, a kind is no upper bound, or more than 2^200 rows would be needed.

    Source: Awasthi, Dikkala, Kamath, Meka (2024), Lemma 18; constants by symmetrisation and contraction.
    """
    wanted, delta, chosen = positive(error, "error"), probability(delta, "delta"), check_kinds(kinds)
    check_switch("realizable", realizable)
    span = loss_range(check_of(of))

    def at(kind: str, rows: int) -> Bound:
        return generalization(of, rows, delta=delta, realizable=realizable, kinds=(kind,))

    least = {kind: _least(partial(at, kind), wanted, _falls_from(of, kind)) for kind in chosen}
    rows, kind = min((m, kind) for kind, m in least.items())
    if rows > _MOST:
        raise ConfigError(f"No number of rows up to 2^200 reaches an error of {wanted:g} by {', '.join(chosen)}.")
    found = at(kind, int(rows))
    return dataclasses.replace(found, value=rows, source=f"Lemma 18, {found.source}", vacuous=wanted >= span)


def _falls_from(of: Class, kind: str) -> float:
    """From how many rows on :func:`generalization` by one kind does not grow with the rows.

    What delta adds falls, and so do all kinds but one. Of ``"vc"``, the dichotomies' logarithm is concave in m and 0 at
    0, so that its share of m falls. Of ``"lsjgh"``, ``ln(2 m)^1.5 / sqrt(m)`` grows up to m = e^3 / 2 alone, where k is
    the lesser. Of ``"adkm"``, ``ln(c m) / m`` with c = k (R + B) grows up to m = e / c, and below 1 / c it is none.
    """
    if kind != "adkm":
        return 1
    log = 1 - log_units(of)
    return max(1, math.ceil(math.exp(log) * (1 + 1e-12))) if log < 200 else math.inf


def _least(at: Callable[[int], Bound], error: float, start: float) -> float:
    """The least m from ``start`` on with a value of at most the error, for bounds that do not grow; or infinity."""
    if start > _MOST:
        return math.inf
    low, high = int(start) - 1, int(start)
    while at(high).value > error:
        low, high = high, 2 * high
        if high > _MOST:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle).value > error else (low, middle)
    return high


def samples_adkm_statistical(of: Class, error: float, delta: float, *, corrected: bool = True) -> Bound:
    """Theorem 17's rows, ``((W R + B)^2 k s n ln(k (R + B) / error) + ln(1 / delta)) / error^2``, hidden constant 1.

    Args:
        of: the class.
        error: of the loss.
        delta: failure probability.
        corrected: for the half-squared loss, which the printed form is too small for: the first term times ``C^2``, the
            second times ``C^4``, with C = k M the largest value. False gives the printed form, which fits a loss of
            slope and range O(1).

    Raises:
        ConfigError: a number is out of range, or the logarithm is not above 0 in these units.

    Source: Awasthi, Dikkala, Kamath, Meka (2024), Theorem 17 (5 in its introduction); the correction is ours.
    """
    error, delta = positive(error, "error"), probability(delta, "delta")
    check_switch("corrected", corrected)
    inside = log_units(check_of(of)) - math.log(error)
    if inside <= 0:
        raise ConfigError(
            f"Theorem 17 says nothing where k (R + B) is at most the error, got {math.exp(inside):g} of it; scale x."
        )
    largest = of.largest if corrected else 1.0
    first = upper(lambda: (of.slope + of.bias) ** 2 * largest**2 * of.k * of.s * of.n * inside / error / error)
    second = upper(lambda: -math.log(delta) * largest**4 / error / error)
    loss = "half-squared loss" if corrected else "a loss of slope and range O(1)"
    return Bound(
        value=first + second,
        assumptions=(
            "inputs of length at most R",
            "at most k neurons active on the support",
            "labels of a network of the class",
            "the learner minimises the empirical risk over the class",
            loss,
            "the hidden constant is 1",
        ),
        failure_probability=delta,
        source="Awasthi et al. 2024, Theorem 17" + (", factors of the loss added" if corrected else ""),
        provenance=QUOTED,
    )
