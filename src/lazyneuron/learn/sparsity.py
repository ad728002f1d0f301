"""How many neurons are active: exactly, on the rows given, or as a lower bound from random points."""

from __future__ import annotations

import dataclasses

import numpy as np

from lazyneuron.core.errors import DataError
from lazyneuron.learn import cube
from lazyneuron.learn.checks import check_points, count, generator_of
from lazyneuron.learn.network import SparseActivationNet, check_net
from lazyneuron.ops.array import Array

_MOST = 22  # the largest n that is enumerated here: s pre-activations for each of 2^n points
_PRODUCTS = 2**36


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparsityReport:
    """Activation counts of a network.

    Attributes:
        max_active: the largest number of neurons active at once that was seen.
        exact: whether it holds for every point of the domain; otherwise it is a lower bound.
        domain: ``"cube"``, ``"rows"`` or ``"random points"``.
        points: how many inputs were looked at.
        mean_active, mean_square_active: ``E K`` and ``E K^2``.
        active_share: ``Pr[neuron j is active]``, shape (s,).
        counts: how many points have 0, 1, ..., ``max_active`` active neurons, int64.
        tolerance: the largest margin by which a pre-activation had to exceed zero; 0 when arithmetic was exact. It is
            a row's own: an extreme row changes no other row's count.
    """

    max_active: int
    exact: bool
    domain: str
    points: int
    mean_active: float
    mean_square_active: float
    active_share: Array
    tolerance: float
    counts: Array = dataclasses.field(repr=False, compare=False)

    def exceeding(self, k: int) -> float:
        """Share of the points with more than k active neurons; on the whole cube it is ``Pr[K > k]``.

        Raises:
            ConfigError: k is no whole number from 0.
        """
        return float(self.counts[count(k, "k", least=0) + 1 :].sum() / self.points)

    @property
    def effective(self) -> float:
        """``sqrt(E K^2)``, the effective sparsity."""
        return float(np.sqrt(self.mean_square_active))

    def __str__(self) -> str:
        kind = "exactly" if self.exact else "at least (a lower bound)"
        margin = f", ties within {self.tolerance:.0e} count as silent" if self.tolerance else ""
        return (
            f"Active at once: {kind} {self.max_active} neurons; E K = {self.mean_active:.4g}, sqrt(E K^2) = "
            f"{self.effective:.4g}, from {self.points} points ({self.domain}){margin}."
        )


def enumerable(net: SparseActivationNet, *, most: int = _MOST) -> bool:
    """Whether a network is looked at on the whole cube: n up to ``most``, and ``s n 2^n`` up to 2^36."""
    return net.n <= most and net.s * net.n * 2**net.n <= _PRODUCTS


def verify_sparsity(
    net: SparseActivationNet, x: object = None, *, samples: int = 100_000, seed: int | np.random.Generator = 0
) -> SparsityReport:
    """Count active neurons.

    Without rows the domain is the cube: enumerated, and exact, for n up to 22 when ``s n 2^n`` is at most 2^36,
    otherwise estimated on random points. Rows say something about themselves only: sparsity on a sample does not
    replace sparsity on the support of the distribution, so ``exact`` is False then.

    Args:
        net: the network.
        x: rows to look at, shape (m, n).
        samples: how many random points are taken where enumeration is impossible.
        seed: of these points.

    Raises:
        ConfigError: the network is none, a number is out of range, or the points would not fit into memory.
        DataError, ShapeError: there are no rows, or they do not fit.
    """
    check_net(net)
    samples, seed = count(samples, "The number of samples"), generator_of(seed)
    if x is not None:
        return _tally(net, net.firing(x), domain="rows", exact=False)
    if enumerable(net):
        rows = max(2**22 // max(net.s, 1), 1)
        whole = (pair for _, block in cube.blocks(net.n, rows=rows) for pair in net.firing(block))
        return _tally(net, whole, domain="cube", exact=True)
    check_points(samples, net.n)
    return _tally(net, net.firing(cube.random_points(samples, net.n, seed=seed)), domain="random points", exact=False)


def _tally(net: SparseActivationNet, firing: object, *, domain: str, exact: bool) -> SparsityReport:
    counts, first, second, per_neuron, margin = np.zeros(net.s + 1, np.int64), 0, 0, np.zeros(net.s, np.int64), 0.0
    for rows, fires in firing:  # type: ignore[attr-defined]
        k = fires.sum(axis=1, dtype=np.int64)
        counts += np.bincount(k, minlength=net.s + 1)
        first += int(k.sum())
        second += int((k * k).sum())
        per_neuron += fires.sum(axis=0)
        margin = max(margin, float(net.tolerance(rows).max(initial=0)))
    seen = int(counts.sum())
    if not seen:
        raise DataError("There are no rows to count active neurons on; pass at least one.")
    most = int(np.flatnonzero(counts)[-1])
    return SparsityReport(
        max_active=most,
        exact=exact,
        domain=domain,
        points=seen,
        mean_active=first / seen,
        mean_square_active=second / seen,
        active_share=per_neuron / seen,
        tolerance=margin,
        counts=counts[: most + 1],
    )
