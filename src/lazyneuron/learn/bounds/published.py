"""The published route from sparsity to samples, with constants where the paper has none; for comparison."""

from __future__ import annotations

import math
from functools import partial

from lazyneuron.learn.bounds.bound import OURS, QUOTED, SPARSE_EVERYWHERE, UNIFORM, Bound
from lazyneuron.learn.bounds.sensitivity import check_class, total_phi
from lazyneuron.learn.bounds.tails import degree_adkm
from lazyneuron.learn.checks import at_least, correlation, positive, probability, upper

_BOTH = (UNIFORM, SPARSE_EVERYWHERE)


def noise_adkm(rho: float, k: int, *, norm: float, bias: float, n: int, s: int) -> Bound:
    """Lemma 10 with its constants, for rho in [0, 1); D3's ``2 (1 - rho) k^2 W^2`` is never worse.

    With ``r = floor(2 / (1 - rho))`` buckets, ``c = sum phi`` as in :func:`as_adkm` and ``t = k (B + W sqrt(2 ln(2 s /
    eta)))``, ``NS <= k^2 W^2 / r + t^2 / r^2 + 2 sqrt(2) c t^2 / sqrt(r)
    + eta k^2 ((W sqrt(n) + B)^2 + n W^2 / 2 r^2)`` for every eta in (0, 1); the value is the least over
    eta = 10^-12, 10^-11.75, ..., 10^-0.25.

    Args:
        rho: the correlation.
        k: active neurons.
        norm: W.
        bias: B.
        n: inputs.
        s: neurons.

    Raises:
        ConfigError: a number is out of range.

    Source: Awasthi, Dikkala, Kamath, Meka (2024), Lemma 10; constants ours, proof in the documentation.
    """
    k, norm, bias, n, s = check_class(k, norm, bias=bias, n=n, s=s)
    rho = correlation(rho, noise=True)
    r = math.floor(2 / (1 - rho) * (1 + 1e-12))  # at whole numbers rounding must not cost a bucket
    c = total_phi(k, s)

    def total(eta: float) -> float:
        cut = k * (bias + norm * math.sqrt(2 * (math.log(2 * s) - math.log(eta))))
        kept = k**2 * norm**2 / r + cut**2 / r**2
        changed = 2 * math.sqrt(2) * c * cut**2 / math.sqrt(r)
        rest = eta * k**2 * ((norm * math.sqrt(n) + bias) ** 2 + n * norm**2 / (2 * r**2))
        return kept + changed + rest

    value = min(upper(partial(total, 10.0 ** (e / 4))) for e in range(-48, 0))
    return Bound(
        value=value,
        assumptions=_BOTH,
        source="Awasthi et al. 2024, Lemma 10, constants explicit",
        provenance=OURS,
        vacuous=value >= upper(lambda: 2 * k**2 * norm**2),  # noise sensitivity is at most half the variance
    )


def samples_adkm(
    error: float, delta: float, k: int, *, norm: float, bias: float, n: int, s: int, degree: float | None = None
) -> Bound:
    """Theorem 8's sample size, ``n^d k^2 (W sqrt(n) + B)^2 ln(1/delta) / error``, with its hidden constant taken as 1.

    Args:
        error: of the half-squared loss.
        delta: failure probability.
        k: active neurons.
        norm: W.
        bias: B.
        n: inputs.
        s: neurons.
        degree: d; the published one (:func:`degree_adkm`) by default, never more than n.

    Returns:
        The number of rows, infinite where it exceeds the range of floating point; vacuous where d reaches n, since
        then the 2^n features are all there are.

    Raises:
        ConfigError: a number is out of range.

    Source: Awasthi, Dikkala, Kamath, Meka (2024), Theorem 8 (4 in its introduction).
    """
    k, norm, bias, n, s = check_class(k, norm, bias=bias, n=n, s=s)
    error, delta = positive(error, "error"), probability(delta, "delta")
    given = None if degree is None else at_least(degree, 0, "A degree")
    wanted = degree_adkm(error, k, norm=norm, bias=bias, n=n, s=s).value if given is None else given
    d = min(wanted, n)
    scale = upper(lambda: k**2 * (norm * math.sqrt(n) + bias) ** 2 * -math.log(delta) / error)
    log = upper(lambda: d * math.log(n) + (math.log(scale) if scale else -math.inf))
    return Bound(
        value=math.exp(log) if log < 700 else math.inf,
        assumptions=(*_BOTH, "labels without noise", "the hidden constant is 1"),
        failure_probability=delta,
        source="Awasthi et al. 2024, Theorem 8",
        provenance=QUOTED,
        vacuous=d >= n,
    )
