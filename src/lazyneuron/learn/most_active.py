"""The largest number of neurons that any point of the cube activates, by integer programming, bounded in time."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.learn.checks import positive
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.ops.array import Array

_GUESSES = 4096
_SLACK = 1e-5  # solvers meet constraints up to 1e-6 of rows whose largest entry is 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MostActive:
    """What is known about the largest number of neurons active at once.

    Attributes:
        found: so many are active at ``point``, counted there: a lower bound.
        limit: no point of the cube activates more, up to the solver's own tolerance: an upper bound.
        point: int8 of shape (n,).
        seconds: how long it took.
        reason: why it stopped, in the solver's words.
    """

    found: int
    limit: int
    point: Array
    seconds: float
    reason: str

    @property
    def exact(self) -> bool:
        """Whether the bounds meet."""
        return self.found == self.limit

    @property
    def gap(self) -> int:
        """``limit - found``; 0 when exact."""
        return self.limit - self.found

    def __str__(self) -> str:
        if self.exact:
            return f"Active at once: exactly {self.found} neurons at most ({self.seconds:.3g} s)."
        return (
            f"Active at once: between {self.found} and {self.limit} neurons at most, a gap of {self.gap} after "
            f"{self.seconds:.3g} s ({self.reason})."
        )


def most_active(net: SparseActivationNet, *, limit_s: float = 60.0, seed: int = 0) -> MostActive:
    """Find the largest K(x) over the whole cube; what enumeration does for small n, here for larger ones.

    Maximises the number of neurons that may count as active over signs x and choices z, with ``<w_j, x> >= b_j`` for
    each chosen neuron. Where a row's weights and threshold are multiples of one number, what is needed is the next such
    number above the threshold, so that ties count as silent; elsewhere a tie may count into ``limit``, and ``found`` is
    counted as everywhere else.

    Args:
        net: the network.
        limit_s: the solver stops after so many seconds, with the gap that is left. Ctrl-C is heard when it returns.
        seed: of the random points that give a first lower bound.

    Raises:
        ConfigError: the time is not above 0.
        ImplUnavailable: the solver gave up without bounds.

    Cost: exponential in the worst case. Networks whose neurons exclude each other by few bits take seconds.

    Source: ours; the solver is HiGHS (Huangfu, Hall 2018) through scipy.
    """
    begin = time.perf_counter()
    positive(limit_s, "limit_s")
    rows, least = _rows(net)
    reach = np.abs(rows).sum(axis=1)
    always, open_ = -reach >= least, (reach >= least) & (-reach < least)
    point, found = _guess(net, seed)
    limit, reason = int(always.sum() + open_.sum()), "no neuron excludes another"
    if open_.any() and found < limit:
        solved, proved, reason = _solve(rows[open_], least[open_], reach[open_], limit_s=limit_s)
        limit = min(limit, int(always.sum()) + proved)
        if solved is not None and (count := int(net.active_counts(solved[None])[0])) > found:
            point, found = solved, count
    return MostActive(
        found=found, limit=max(limit, found), point=point, seconds=time.perf_counter() - begin, reason=reason
    )


def _rows(net: SparseActivationNet) -> tuple[Array, Array]:
    """Weights, each row's largest 1, and what ``<w, x>`` is at least where the neuron is active."""
    size = np.abs(net.weight)
    unit = np.where(size > 0, size, np.inf).min(axis=1, initial=np.inf)
    top = size.max(axis=1, initial=0)
    top = np.where(top > 0, top, 1.0)
    unit = np.where(np.isfinite(unit), unit, 1.0)
    weight, threshold = net.weight / unit[:, None], net.threshold / unit
    whole = (weight == np.rint(weight)).all(axis=1) & (top / unit < 1e4)
    # on +-1 inputs whole weights give whole numbers of one parity
    odd = np.abs(weight).sum(axis=1) % 2
    following = 2 * np.floor((threshold - odd) / 2) + odd + 2
    least = np.where(whole, following - 1, threshold)  # halfway to the number below: rounding cannot matter
    return net.weight / top[:, None], np.where(whole, least * unit / top, net.threshold / top - _SLACK)


def _guess(net: SparseActivationNet, seed: int) -> tuple[Array, int]:
    from lazyneuron.learn import cube

    x = cube.random_points(_GUESSES, net.n, seed=seed)
    counts = net.active_counts(x)
    best = int(counts.argmax())
    return x[best], int(counts[best])


def _solve(weight: Array, least: Array, reach: Array, *, limit_s: float) -> tuple[Array | None, int, str]:
    """A point, a proved limit on how many of these neurons it may activate, and the solver's words."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, diags_array, hstack

    s, n = weight.shape
    # with x = 1 - 2 t: <w, 1> - 2 <w, t> - (least + reach) z >= -reach
    total = weight.sum(axis=1)
    matrix: Any = hstack([csr_array(-2 * weight), diags_array(-(least + reach))], format="csc")
    found = milp(
        np.concatenate([np.zeros(n), -np.ones(s)]),
        constraints=LinearConstraint(matrix, lb=-reach - total),
        integrality=np.ones(n + s),
        bounds=Bounds(0, 1),
        options={"time_limit": limit_s, "mip_rel_gap": 0.0},
    )
    bound = found.mip_dual_bound
    if bound is None or not math.isfinite(bound):
        if found.status != 1:
            raise ImplUnavailable(f"The solver gave up: {found.message}; enumerate the cube or count on samples.")
        bound = -float(s)
    proved = min(math.floor(-bound + 1e-6), s)
    point = None if found.x is None else (1 - 2 * np.rint(found.x[:n])).astype(np.int8)
    return point, proved, str(found.message)
