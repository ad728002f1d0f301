"""The published route from sparsity to samples, with constants where the paper has none; for comparison."""

from __future__ import annotations

import math

import numpy as np

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds.bound import OURS, QUOTED, SPARSE_EVERYWHERE, UNIFORM, Bound
from lazyneuron.learn.bounds.sensitivity import check_class, total_phi
from lazyneuron.learn.bounds.tails import degree_adkm
from lazyneuron.learn.checks import at_least, positive, probability

_BOTH = (UNIFORM, SPARSE_EVERYWHERE)


def noise_adkm(rho: float, k: float, *, norm: float, bias: float, n: int, s: int) -> Bound:
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
    check_class(k, norm, bias=bias, n=n, s=s)
    if not 0 <= rho < 1:
        raise ConfigError(f"Buckets need a correlation in [0, 1), got {rho}.")
    r = math.floor(2 / (1 - rho) * (1 + 1e-12))  # at whole numbers rounding must not cost a bucket
    c = total_phi(k, s)

    def total(eta: float) -> float:
        cut = k * (bias + norm * math.sqrt(2 * math.log(2 * s / eta)))
        kept = k**2 * norm**2 / r + cut**2 / r**2
        changed = 2 * math.sqrt(2) * c * cut**2 / math.sqrt(r)
        rest = eta * k**2 * ((norm * math.sqrt(n) + bias) ** 2 + n * norm**2 / (2 * r**2))
        return kept + changed + rest

    value = float(min(total(10.0**e) for e in np.arange(-12, 0, 0.25)))
    return Bound(
        value=value,
        assumptions=_BOTH,
        source="Awasthi et al. 2024, Lemma 10, constants explicit",
        provenance=OURS,
        vacuous=value >= 2 * k**2 * norm**2,  # noise sensitivity is at most half the variance
    )


def samples_adkm(
    error: float, delta: float, k: float, *, norm: float, bias: float, n: int, s: int, degree: float | None = None
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
    check_class(k, norm, bias=bias, n=n, s=s)
    wanted = degree_adkm(error, k, norm=norm, bias=bias, n=n, s=s).value if degree is None else degree
    d = min(at_least(wanted, 0, "A degree"), n)
    scale = k**2 * (norm * math.sqrt(n) + bias) ** 2
    scale *= -math.log(probability(delta, "delta")) / positive(error, "error")
    log = d * math.log(n) + (math.log(scale) if scale else -math.inf)
    return Bound(
        value=math.exp(log) if log < 700 else math.inf,
        assumptions=(*_BOTH, "labels without noise", "the hidden constant is 1"),
        failure_probability=delta,
        source="Awasthi et al. 2024, Theorem 8",
        provenance=QUOTED,
        vacuous=d >= n,
    )
