"""What cannot be learnt efficiently, as statements with their numbers; conjectures say that they are conjectures."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.numbers import real
from lazyneuron.learn.bounds.bound import CONJECTURE, QUOTED, TEXTBOOK, Bound, Provenance
from lazyneuron.learn.bounds.rademacher import Class
from lazyneuron.learn.checks import count

_PAPER = "Awasthi, Dikkala, Kamath, Meka (2024)"
_BITS, _MOST_BITS = "m, the number of bits,", 1000
_MOST = 10**30
_LWR = "Conjecture 16 (learning with rounding is hard for polynomial moduli)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardness:
    """A statement that something is hard to learn.

    Attributes:
        kind: ``"theorem"`` or ``"conjecture"``; a theorem may rest on conjectures.
        claim: the statement, in one sentence, with its numbers.
        rests_on: unproved statements that it needs; none makes it unconditional.
        of: the class of networks that is hard, if it is one.
        log2_work: binary logarithm of the number that the claim measures work by (constants in exponents as 1), or None
            where it says "not polynomial" and no number.
        source, provenance: where it stands, who vouches for it.
    """

    kind: Literal["theorem", "conjecture"]
    claim: str
    source: str
    provenance: Provenance
    rests_on: tuple[str, ...] = ()
    of: Class | None = None
    log2_work: float | None = None

    def __str__(self) -> str:
        given = f" if {'; '.join(self.rests_on)} holds" if self.rests_on else ""
        return f"{self.kind.capitalize()}: {self.claim}{given} [{self.source}; {self.provenance}]."


def junta_conjecture(n: int, p: int) -> Hardness:
    """Conjecture 12: functions of p of n uniform bits take ``n^Omega(p)`` time to learn.

    Raises:
        ConfigError: p is not from 1 to n, or one is no whole number.
    """
    n = count(n, "n")
    p = count(p, "p, the number of bits that a junta depends on,", most=n)
    return Hardness(
        kind="conjecture",
        claim=f"no algorithm learns functions of p = {p} among n = {n} uniform bits in time n^o(p)",
        log2_work=p * math.log2(n),
        source=f"{_PAPER}, Conjecture 12",
        provenance=CONJECTURE,
    )


def junta_hardness(n: int, s: int) -> Hardness:
    """Theorem 13: if Conjecture 12 holds, 1-sparse networks of s neurons on uniform bits take ``n^Omega(log s)`` time.

    Functions of ``p = floor(log2 s)`` bits are such networks (:func:`junta_net`), with ``W = sqrt(p)`` and
    ``B = p - 1``.

    Raises:
        ConfigError: s is below 2, above 2^n or above 10^300, or a number is not whole.
    """
    n, s = count(n, "n"), count(s, "s", least=2)
    p = s.bit_length() - 1
    if p > n:
        raise ConfigError(f"More than 2^n = 2^{n} neurons are no junta of these bits, got s = {s:.9g}.")
    return Hardness(
        kind="theorem",
        claim=f"no algorithm learns 1-sparse networks of s = {s} neurons on n = {n} uniform bits in time n^o(log s)",
        rests_on=("Conjecture 12 (juntas are hard)",),
        of=Class(n=n, s=s, k=1, norm=math.sqrt(p), bias=p - 1, radius=math.sqrt(n)),
        log2_work=p * math.log2(n),
        source=f"{_PAPER}, Theorem 13",
        provenance=QUOTED,
    )


def parity_queries(m: int, tolerance: float) -> Bound:
    """How many statistical queries tell the 2^m parities of m uniform bits apart: at least ``tolerance^2 (2^m - 1)``.

    With fewer, answers within the tolerance leave two parities possible, and any function has a half-squared loss of
    1/4 or more on one of them (labels +-1).

    Args:
        m: bits.
        tolerance: how far an answer may be off, in (0, 1].

    Raises:
        ConfigError: m is not from 1 to 1000 (2^m would leave the range of floats), or the tolerance out of range.

    Source: Blum, Furst, Jackson, Kearns, Mansour, Rudich (1994); the constant by the proof in the documentation.
    """
    m, tolerance = count(m, _BITS, most=_MOST_BITS), real(tolerance, "The tolerance")
    if not 0 < tolerance <= 1:
        raise ConfigError(f"A tolerance of queries with values in [-1, 1] lies in (0, 1], got {tolerance}.")
    queries = tolerance * (tolerance * (2.0**m - 1))
    return Bound(
        value=queries,
        assumptions=("queries of values in [-1, 1], answered up to the tolerance", "bits uniform, or lifted from such"),
        source="Blum et al. 1994",
        provenance=TEXTBOOK,
        vacuous=queries <= 1,
    )


def parity_hardness(m: int) -> Hardness:
    """Theorem 3a (14): 1-sparse networks on the lifted law take ``2^(m/3)`` queries or a tolerance below ``2^(-m/3)``.

    Every parity of m bits is such a network on ``n = m^2`` lifted inputs (:func:`lifted_parity`), with
    ``s = floor(m/2) + 1``, ``W = 2 sqrt(m (m - 1) + 4 m^3)``, ``B = 2 (m + m^2 - 1/2)``. It is
    unconditional, and about queries alone: elimination over GF(2) learns a parity without noise from m samples.

    Raises:
        ConfigError: m is not from 1 to 1000.

    Source: as above; :func:`parity_queries` for other tolerances.
    """
    m = count(m, _BITS, most=_MOST_BITS)
    tolerance = 2.0 ** (-m / 3)
    queries = parity_queries(m, tolerance).value
    n = m * m
    return Hardness(
        kind="theorem",
        claim=(
            f"learning 1-sparse networks on n = {n} lifted inputs takes {queries:.3g} statistical queries or a "
            f"tolerance below {tolerance:.3g}"
        ),
        of=Class(n=n, s=m // 2 + 1, k=1, norm=2 * math.sqrt(m * (m - 1) + 4 * m**3), bias=2 * (m + n - 0.5), radius=m),
        log2_work=math.log2(queries),
        source=f"{_PAPER}, Theorem 3a",
        provenance=TEXTBOOK,
    )


def rounding_conjecture(q: int, p: int, m: int) -> Hardness:
    """Conjecture 16: learning with rounding over Z_q with p labels is not polynomial in m, for polynomial q.

    Raises:
        ConfigError: not ``2 <= p < q`` with m from 1; with p = q nothing is rounded.
    """
    q, p, m = _rounding(q, p, m)
    return Hardness(
        kind="conjecture",
        claim=f"no algorithm polynomial in m learns <w, y> mod q rounded to p values (q = {q}, p = {p}, m = {m})",
        source=f"{_PAPER}, Conjecture 16",
        provenance=CONJECTURE,
    )


def rounding_hardness(q: int, p: int, m: int, *, rounding: str = "floor") -> Hardness:
    """Theorem 3b: 1-sparse networks on arbitrary laws have no polynomial learner, if Conjecture 16 holds.

    Learning with rounding is such a network (:func:`lwr_instance`) on ``n = (m ceil(log2 q))^2`` inputs with at most
    ``m (q - 1)^2 + 1`` neurons; W and B are upper bounds over all secrets, polynomial in m and q and attained by none
    (for q = 4, p = 2, m = 2: 344.5 and 693, where the worst secrets have 181.6 and 647).

    Args:
        q: modulus.
        p: labels, from 2 to q.
        m: length of the secret.
        rounding: ``"floor"``; or ``"mod"``, the paper's Definition 15, which is as hard when p and q have no common
            factor, and refused when they have one: when p divides q it is linear algebra.

    Raises:
        ConfigError: numbers out of range (none exceeds 10^30), or nothing is hard about them.
    """
    q, p, m = _rounding(q, p, m)
    check_choice("A rounding", rounding, ("floor", "mod"))
    if rounding == "mod" and math.gcd(p, q) != 1:
        easy = "it is solved by linear algebra" if q % p == 0 else "no reduction is known"
        raise ConfigError(f"Rounding by mod with p = {p} and q = {q} is not known to be hard: {easy}; take floor.")
    bits = (q - 1).bit_length()
    square = m * (q - 1) ** 2 / 4 * (4**bits - 1) / 3  # |form|^2, the largest: of the secret q - 1 everywhere
    shift = max(m * (q - 1) * (2**bits - 1) / 2, m * (q - 1) ** 2)  # of other secrets, so that W is attained by none
    inputs = m * bits
    return Hardness(
        kind="theorem",
        claim=f"no polynomial algorithm learns 1-sparse networks on arbitrary laws of n = {inputs**2} inputs",
        rests_on=(_LWR,),
        of=Class(
            n=inputs**2,
            s=m * (q - 1) ** 2 + 1,
            k=1,
            norm=2 * (p - 1) * math.sqrt(square**2 + 4 * shift**2 * square),
            bias=2 * (p - 1) * (square + shift**2),
            radius=inputs,
        ),
        source=f"{_PAPER}, Theorem 3b; errata E8 and E9 taken into account",
        provenance=QUOTED,
    )


def _rounding(q: int, p: int, m: int) -> tuple[int, int, int]:
    q, p, m = (count(value, name, least=0, most=_MOST) for value, name in ((q, "q"), (p, "p"), (m, "m")))
    if not (2 <= p < q and m >= 1):  # with p = q nothing is rounded: linear algebra
        raise ConfigError(f"Learning with rounding needs 2 <= p < q and m >= 1, got q = {q}, p = {p}, m = {m}.")
    return q, p, m
