"""How much Fourier weight lies above a degree, and which degree is enough."""

from __future__ import annotations

import math

import numpy as np

from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError, ShapeError
from lazyneuron.learn.bounds.bound import OURS, QUOTED, SPARSE_EVERYWHERE, TEXTBOOK, UNIFORM, Bound
from lazyneuron.learn.bounds.sensitivity import check_class, phi, phi_capped
from lazyneuron.learn.checks import at_least, correlation, count, finite_array, positive, upper

_BOTH = (UNIFORM, SPARSE_EVERYWHERE)


def tail_bound(degree: int, k: int, *, norm: float) -> Bound:
    """D3: ``tail(d) <= 4 k^2 W^2 / (d + 1)``; vacuous where it exceeds the variance bound ``4 k^2 W^2``.

    Raises:
        ConfigError: a number is out of range.

    Source: ours, D3; attained at d = p - 1 by the parity of p bits.
    """
    d, active, w = count(degree, "A degree", least=0), count(k, "k"), at_least(norm, 0, "W")
    value = upper(lambda: 4 * active**2 * w**2 / (d + 1))
    return Bound(value=value, assumptions=_BOTH, source="D3", provenance=OURS, vacuous=d == 0)


def tail_bound_sensitivity(degree: int, sensitivity: float) -> Bound:
    """``tail(d) <= AS / (d + 1)`` from any bound on the average sensitivity (an estimate is none).

    Raises:
        ConfigError: a number is out of range.
    """
    value = at_least(sensitivity, 0, "AS") / (count(degree, "A degree", least=0) + 1)
    law = (UNIFORM, "AS is at most the number given")
    return Bound(value=value, assumptions=law, source="Markov over degrees", provenance=OURS)


def tail_from_noise(degree: int, noise: float, *, rho: float) -> Bound:
    """Claim 2.1: ``tail(d) <= 2 NS_rho / (1 - rho^(d + 1))`` from any bound on the noise sensitivity, rho in [0, 1).

    Printed with ``rho^d``, which is the same proof with less care and says nothing at d = 0; with ``d + 1`` the parity
    of d + 1 bits attains it. The noise stability is ``E f^2 - 2 NS_rho``.

    Args:
        degree: d.
        noise: ``NS_rho``, or an upper bound (an estimate is none).
        rho: the correlation.

    Raises:
        ConfigError: a number is out of range.

    Source: Klivans, O'Donnell, Servedio (2004); Awasthi, Dikkala, Kamath, Meka (2024), Claim 2.1.
    """
    d, found, rho = count(degree, "A degree", least=0), at_least(noise, 0, "NS"), correlation(rho, noise=True)
    above = -math.expm1((d + 1) * math.log(rho)) if rho else 1.0
    value = upper(lambda: 2 * found / above)
    law = (UNIFORM, "NS is at most the number given")
    return Bound(value=value, assumptions=law, source="Awasthi et al. 2024, Claim 2.1", provenance=TEXTBOOK)


def width_phi(k: int, norm: float, *, s: int) -> float:
    """The bound on D4's Phi from the width alone: ``2 k W^2 sqrt(ln(s / 2k))``, or ``.429 s W^2`` for small s."""
    if s / k >= 2 * math.exp(0.5):
        return 2 * k * norm**2 * math.sqrt(math.log(s / (2 * k)))
    return phi(math.exp(-0.5)) * s * norm**2


def active_phi(norms: object, shares: object) -> float:
    """``Phi = sum_j |v_j|^2 phi(min(1, 2 p_j))`` of a network, from the norms of its rows and its activation shares.

    Args:
        norms: ``|v_j|``, shape (s,).
        shares: ``p_j``, shape (s,).

    Raises:
        ConfigError: a norm is negative, or a share lies outside [0, 1].
        DataError, ShapeError: they are no rows of finite numbers, or differ in length.
    """
    lengths, often = finite_array(norms, "norms", ndim=1), finite_array(shares, "shares", ndim=1)
    if len(lengths) != len(often):
        raise ShapeError(f"There is one share for each norm, got {len(often)} for {len(lengths)}.")
    if min(lengths.min(initial=0), often.min(initial=0)) < 0 or often.max(initial=0) > 1:
        raise ConfigError("Norms are at least 0 and shares lie in [0, 1]; pass lengths of rows and activation shares.")
    pairs = zip(lengths.tolist(), np.minimum(2 * often, 1.0).tolist(), strict=True)
    return upper(lambda: float(sum(a * a * phi_capped(p) for a, p in pairs)))


def tail_bound_width(
    degree: int, k: int, *, norm: float, s: int | None = None, phi_value: float | None = None
) -> Bound:
    """D4: ``tail(d) <= 4 k Phi / ((1 - 1/e) sqrt(d) (d + 1))`` for d from 1.

    Args:
        degree: d.
        k: active neurons.
        norm: W.
        s: the width, for the bound on Phi; or
        phi_value: Phi itself, from :func:`active_phi` with exact shares, or an upper bound.

    Raises:
        ConfigError: the degree is below 1, or not exactly one of ``s`` and ``phi_value`` was given.

    Source: ours, D4.
    """
    if (s is None) == (phi_value is None):
        raise ConfigError("Give either the width s or the value of Phi.")
    d, active, w = count(degree, "A degree"), count(k, "k"), at_least(norm, 0, "W")
    width = None if s is None else count(s, "s")
    given = None if phi_value is None else at_least(phi_value, 0, "Phi")

    def at() -> float:
        found = width_phi(active, w, s=width) if width is not None else given or 0.0
        return 4 * active * found / ((1 - math.exp(-1)) * math.sqrt(d) * (d + 1))

    value = upper(at)
    law = _BOTH if s is not None else (*_BOTH, "Phi is at most the number given")
    trivial = upper(lambda: 4 * active**2 * w**2)
    return Bound(value=value, assumptions=law, source="D4", provenance=OURS, vacuous=value >= trivial)


def noise_bound(rho: float, k: int, *, norm: float) -> Bound:
    """``NS_rho(h) <= 2 (1 - rho) k^2 W^2`` for rho in [-1, 1].

    Raises:
        ConfigError: a number is out of range.

    Source: ours, D3.
    """
    noise, active, w = 1 - correlation(rho), count(k, "k"), at_least(norm, 0, "W")
    value = upper(lambda: 2 * noise * active**2 * w**2)
    return Bound(value=value, assumptions=_BOTH, source="D3", provenance=OURS)


def degree_for(
    error: float, k: int, *, norm: float, n: int | None = None, s: int | None = None, rule: str = "best"
) -> Bound:
    """The least degree whose tail is certified to be at most ``error``.

    Args:
        error: squared distance allowed to the best polynomial.
        k: active neurons.
        norm: W.
        n: caps the degree (the polynomial is exact there); None leaves it as it is.
        s: the width, which D4 needs.
        rule: ``"D3"``, ``"D4"``, or the better of both.

    Raises:
        ConfigError: a number is out of range, D4 is asked for without the width, or the degree would overflow.

    Source: ours, D3 and D4.
    """
    if rule not in ("best", "D3", "D4") or (rule == "D4" and s is None):
        raise ConfigError(
            f"The rule is best, D3, or D4 with the width s, got {described(rule)} with s = {described(s)}."
        )
    k, norm, error = count(k, "k"), at_least(norm, 0, "W"), positive(error, "error")
    n, s = None if n is None else count(n, "n", least=0), None if s is None else count(s, "s")
    whole = upper(lambda: 4 * k**2 * norm**2)
    if not math.isfinite(whole / error):
        raise ConfigError(f"No finite degree reaches an error of {error:g} where the variance is up to {whole:g}.")
    first = max(math.ceil(whole / error * (1 - 1e-12)) - 1, 0)  # at equality rounding must not cost a degree
    second = first
    if s is not None and rule != "D3":
        second = _least(error, k, norm, s)
    degree = {"best": min(first, second), "D3": first, "D4": second}[rule]
    capped = degree if n is None else min(degree, n)
    return Bound(
        value=capped,
        assumptions=_BOTH,
        source="D4" if degree < first or rule == "D4" else "D3",
        provenance=OURS,
        vacuous=n is not None and degree >= n,
    )


def _least(error: float, k: int, norm: float, s: int) -> int:
    """Least d from 1 with D4 at most ``error``, by bisection: the bound falls in d."""
    high = 1
    while tail_bound_width(high, k, norm=norm, s=s).value > error:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if tail_bound_width(middle, k, norm=norm, s=s).value > error:
            low = middle
        else:
            high = middle
    return high


def degree_adkm(error: float, k: int, *, norm: float, bias: float, n: int, s: int) -> Bound:
    """The published degree ``(k^8 W^4 ln^4(ns) + k^6 B^4 ln s) / error^2`` with the constant taken as 1.

    Raises:
        ConfigError: a number is out of range.

    Source: Awasthi, Dikkala, Kamath, Meka (2024), Theorem 8.
    """
    k, norm, bias, n, s = check_class(k, norm, bias=bias, n=n, s=s)
    error = positive(error, "error")
    first = upper(lambda: k**8 * norm**4 * math.log(n * s) ** 4 / error / error)
    value = first + upper(lambda: k**6 * bias**4 * math.log(s) / error / error)
    return Bound(
        value=value,
        assumptions=(*_BOTH, "the hidden constant is 1"),
        source="Awasthi et al. 2024, Theorem 8",
        provenance=QUOTED,
        vacuous=value >= n,
    )
