"""How many rows make empirical risk minimisation good under any input law."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds.bound import QUOTED, Bound
from lazyneuron.learn.bounds.rademacher import Class, generalization
from lazyneuron.learn.checks import positive, probability

_MOST = 2**200  # rows


def samples_erm(
    of: Class,
    error: float,
    delta: float,
    *,
    realizable: bool = True,
    kinds: Sequence[str] = ("trivial", "dense", "vc"),
) -> Bound:
    """Lemma 18 with its constants: the least m at which :func:`generalization` is at most the error.

    Args:
        of: the class.
        error: of the half-squared loss.
        delta: failure probability.
        realizable, kinds: as in :func:`generalization`.

    Raises:
        ConfigError: a number is out of range, or a kind is no upper bound.

    Source: Awasthi, Dikkala, Kamath, Meka (2024), Lemma 18; constants by symmetrisation and contraction.
    """
    positive(error, "error")

    def at(rows: int) -> Bound:
        return generalization(of, rows, delta=delta, realizable=realizable, kinds=kinds)

    high = 1
    while at(high).value > error:
        high *= 2
        if high > _MOST:
            raise ConfigError(f"No number of rows up to 2^200 reaches an error of {error:g} by {list(kinds)}.")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle).value > error else (low, middle)
    found = at(high)
    return dataclasses.replace(found, value=high, source=f"Lemma 18, {found.source}", vacuous=False)


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
    inside = of.k * (of.radius + of.bias) / positive(error, "error")
    if inside <= 1:
        raise ConfigError(
            f"Theorem 17 says nothing where k (R + B) is at most the error, got {inside:g} of it; scale x."
        )
    largest = of.largest if corrected else 1.0
    first = (of.slope + of.bias) ** 2 * of.k * of.s * of.n * math.log(inside) * largest**2
    second = -math.log(probability(delta, "delta")) * largest**4
    loss = "half-squared loss" if corrected else "a loss of slope and range O(1)"
    return Bound(
        value=(first + second) / error**2,
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
