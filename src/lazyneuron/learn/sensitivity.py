"""Four upper bounds on the average sensitivity of a given network, each finer than the one before."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lazyneuron.core.errors import ConfigError
from lazyneuron.core.numbers import whole as whole_number
from lazyneuron.learn import cube
from lazyneuron.learn.bounds.tails import active_phi
from lazyneuron.learn.checks import check_points, count, probability
from lazyneuron.learn.network import SparseActivationNet, check_net
from lazyneuron.learn.queries import Estimate, mean_estimate
from lazyneuron.learn.sparsity import SparsityReport, enumerable, verify_sparsity
from lazyneuron.ops.array import Array

_MOST = 18
_ENTRIES = 1 << 22
_FLIPS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class SensitivityBounds:
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
        promised: whether k is exact or was promised; otherwise it is the most that was seen, and only ``c2_limit``
            bounds anything.
        c2_limit: confidence interval of c2 when it is an estimate; needs no promise.
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
    promised: bool
    c2_limit: Estimate | None
    sparsity: SparsityReport

    @property
    def least(self) -> float:
        """The finest that is proved: of all four when exact, else of C2's upper limit and C0 of a promised k."""
        if self.c2_limit is None:
            return min(self.c0, self.c1, self.c2, self.c3)
        return min(self.c2_limit.high, self.c0) if self.promised else self.c2_limit.high


def sensitivity_bounds(
    net: SparseActivationNet,
    *,
    k: int | None = None,
    samples: int = 20_000,
    seed: int = 0,
    delta: float = 0.05,
) -> SensitivityBounds:
    """The bounds of a network under uniform inputs.

    Args:
        net: the network.
        k: a promise about the largest number of active neurons, as known from structure; otherwise what was counted,
            which is exact where the cube was enumerated (n up to 18, ``s n 2^n`` up to 2^36) and a lower bound
            elsewhere.
        samples: random points where the cube is too large.
        seed: of these points.
        delta: failure probability of the confidence limit.

    Raises:
        ConfigError: k is below the number of neurons seen active at once, another number is out of range, the network
            is none, or the points would not fit into memory.
        DataError: squares of the weights overflow.

    Cost: ``2^n s n`` operations when enumerated.

    Source: ours, D2.
    """
    check_net(net)
    samples, delta = count(samples, "The number of samples", least=2), probability(delta, "delta")
    seed = whole_number(seed, "A seed", least=0)
    k = None if k is None else count(k, "k", least=0)
    whole = enumerable(net, most=_MOST)
    if not whole:
        check_points(samples, net.n)
    report = verify_sparsity(net, None if whole else cube.random_points(samples, net.n, seed=seed))
    if k is not None and k < report.max_active:
        raise ConfigError(f"k = {k} is promised, but {report.max_active} neurons are active on one input; raise k.")
    active = max(report.max_active, 1) if k is None else k
    x = cube.points(net.n) if whole else cube.random_points(samples, net.n, seed=seed)
    square, single = _sums(net, x, whole=whole, seed=seed + 1)
    v, _, _ = net.rebalance()
    norms = np.linalg.norm(v, axis=1)
    norm = float(norms.max(initial=0))
    limit = None
    if not whole:
        span = _largest_square(net) if k is None else min(_largest_square(net), norm**2 * k**2)
        limit = mean_estimate(4 * square, delta=delta, span=max(4 * span, 1e-300), queries=len(x))
    return SensitivityBounds(
        k=active,
        norm=norm,
        c0=4 * active**2 * norm**2,
        c1=4 * active * float(report.active_share @ norms**2),
        c2=4 * float(square.mean()),
        c3=2 * active * single,
        phi=active_phi(norms, report.active_share),
        exact=report.exact,
        promised=report.exact or k is not None,
        c2_limit=limit,
        sparsity=report,
    )


def _largest_square(net: SparseActivationNet) -> float:
    """``|sum_j |v_j||^2`` over the neurons that some point of the cube activates: no point exceeds it."""
    v, beta, _ = net.rebalance()
    size = np.abs(v)
    return float((size[size.sum(axis=1) > beta].sum(axis=0) ** 2).sum())


def _sums(net: SparseActivationNet, x: Array, *, whole: bool, seed: int) -> tuple[Array, float]:
    """``|sum over active j of |v_j||^2`` at each point, and ``sum_j AS(neuron_j)``."""
    v, beta, _ = net.rebalance()
    size = np.abs(v)
    square = np.concatenate([((fires @ size) ** 2).sum(axis=1) for _, fires in net.firing(x)])
    if whole:
        return square, _neuron_sensitivities(v, beta, net.n)
    # a few random bits of every point: unbiased, and n times cheaper than all of them
    generator = np.random.default_rng(seed)
    rows, total = max(_ENTRIES // max(net.s, 1), 1), 0.0
    for begin in range(0, len(x), rows):
        block = x[begin : begin + rows].astype(np.float64)
        z = block @ v.T - beta
        for _ in range(_FLIPS):
            bit = generator.integers(0, net.n, len(block))
            moved = z - 2 * v[:, bit].T * block[np.arange(len(block)), bit][:, None]
            total += float(((np.maximum(z, 0) - np.maximum(moved, 0)) ** 2).sum())
    return square, net.n * total / 4 / _FLIPS / len(x)


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


Ladder, certificates = SensitivityBounds, sensitivity_bounds  # their names until 0.1
