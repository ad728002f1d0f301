"""The certificate ladder: four upper bounds on the average sensitivity of a network, each finer than the one before."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn import cube
from lazyneuron.learn.array import Array
from lazyneuron.learn.bounds.tails import active_phi
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.learn.queries import Estimate, mean_estimate
from lazyneuron.learn.sparsity import SparsityReport, verify_sparsity

_MOST = 18
_ENTRIES = 1 << 22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ladder:
    """Upper bounds on AS under uniform inputs; ``C0 >= C1 >= max(C2, C3)`` and ``min(C2, C3) >= AS``.

    Attributes:
        k: at most so many neurons are active.
        norm: W.
        c0: ``4 k^2 W^2``.
        c1: ``4 k sum_j p_j |v_j|^2``.
        c2: ``4 E |sum over active j of |v_j||^2``, entrywise; needs no promise about k.
        c3: ``2 k sum_j AS(neuron_j)``.
        phi: D4's Phi.
        exact: computed on the whole cube with an exact k; otherwise c1, c2, c3 and phi are estimates on points.
        c2_limit: upper confidence limit of c2 when it is an estimate.
        sparsity: where k comes from.
    """

    k: int
    norm: float
    c0: float
    c1: float
    c2: float
    c3: float
    phi: float
    exact: bool
    c2_limit: Estimate | None
    sparsity: SparsityReport

    @property
    def least(self) -> float:
        """The finest of the four."""
        return min(self.c0, self.c1, self.c2, self.c3)


def certificates(
    net: SparseActivationNet,
    *,
    k: int | None = None,
    samples: int = 20_000,
    seed: int = 0,
    delta: float = 0.05,
) -> Ladder:
    """The ladder of a network under uniform inputs.

    Args:
        net: the network.
        k: a promise about the largest number of active neurons, as known from structure; otherwise what was counted,
            which is exact where the cube was enumerated (n up to 18) and a lower bound elsewhere.
        samples: random points where the cube is too large.
        seed: of these points.
        delta: failure probability of the confidence limit.

    Raises:
        ConfigError: k is below the number of neurons seen active at once.

    Cost: ``2^n s n`` operations when enumerated.

    Source: ours, D2.
    """
    whole = net.n <= _MOST
    report = verify_sparsity(net, None if whole else cube.random_points(samples, net.n, seed=seed))
    if k is not None and k < report.max_active:
        raise ConfigError(f"k = {k} is promised, but {report.max_active} neurons are active on one input; raise k.")
    active = max(report.max_active, 1) if k is None else k
    x = cube.points(net.n) if whole else cube.random_points(samples, net.n, seed=seed)
    square, single = _sums(net, x, whole=whole)
    v, _, _ = net.rebalance()
    norms = np.linalg.norm(v, axis=1)
    norm = float(norms.max(initial=0))
    limit = None
    if not whole:
        span = 4 * norm**2 * (active if k is not None else net.s) ** 2
        limit = mean_estimate(4 * square, delta=delta, span=max(span, 1e-300), queries=len(x))
    return Ladder(
        k=active,
        norm=norm,
        c0=4 * active**2 * norm**2,
        c1=4 * active * float(report.active_share @ norms**2),
        c2=4 * float(square.mean()),
        c3=2 * active * single,
        phi=active_phi(norms, report.active_share),
        exact=whole,
        c2_limit=limit,
        sparsity=report,
    )


def _sums(net: SparseActivationNet, x: Array, *, whole: bool) -> tuple[Array, float]:
    """``|sum over active j of |v_j||^2`` at each point, and ``sum_j AS(neuron_j)``."""
    v, beta, _ = net.rebalance()
    size = np.abs(v)
    square = np.concatenate([((fires @ size) ** 2).sum(axis=1) for _, fires in net.firing(x)])
    if whole:
        return square, _neuron_sensitivities(v, beta, net.n)
    # flip every bit of every point: the pre-activation moves by 2 v_ji
    rows = max(_ENTRIES // max(net.s, 1) // max(net.n, 1), 1)
    total = 0.0
    for begin in range(0, len(x), rows):
        block = x[begin : begin + rows].astype(np.float64)
        z = block @ v.T - beta
        moved = z[:, :, None] - 2 * v[None] * block[:, None, :]
        total += float(((np.maximum(z, 0)[:, :, None] - np.maximum(moved, 0)) ** 2).sum())
    return square, total / 4 / len(x)


def _neuron_sensitivities(v: Array, beta: Array, n: int) -> float:
    """``sum_j AS(neuron_j)`` on the whole cube, bit by bit from tables of the neurons' values."""
    group = max(_ENTRIES >> n, 1)
    x = cube.points(n).astype(np.float64)
    total = 0.0
    for begin in range(0, len(v), group):
        table = np.maximum(x @ v[begin : begin + group].T - beta[begin : begin + group], 0)
        for i in range(n):
            pairs = table.reshape(-1, 2, 1 << i, table.shape[1])
            total += float(((pairs[:, 0] - pairs[:, 1]) ** 2).sum()) * 2
    return total / 4 / math.ldexp(1.0, n)
