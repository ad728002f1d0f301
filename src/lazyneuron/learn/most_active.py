"""The largest number of neurons that any point of the cube activates, by integer programming, bounded in time."""

from __future__ import annotations

import dataclasses
import math
import time
from fractions import Fraction
from typing import Any

import numpy as np

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.learn import cube
from lazyneuron.learn.checks import positive
from lazyneuron.learn.network import SparseActivationNet, check_net
from lazyneuron.ops.array import Array

_GUESSES = 4096
_SLACK = 1e-5  # solvers meet constraints up to 1e-6 of rows whose largest entry is 1
_UNITS = 10_000  # so many of a common unit the largest weight has at most; half of one is far above the slack
_ROUNDING = float(8 * np.finfo(np.float64).eps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MostActive:
    """What is known about the largest number of neurons active at once.

    Attributes:
        found: so many are active at ``point``, counted there: a lower bound.
        limit: no point of the cube activates more: an upper bound, if the solver's constraints hold up to 1e-6.
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
    each chosen neuron. Where a row's weights are multiples of one number, at most 10^4 of it, what is needed is the
    next such number above the threshold, so that ties count as silent. Elsewhere a tie may be chosen; each point that
    the solver returns is counted as everywhere else, and where a chosen neuron is silent the solver goes on, told that
    this neuron needs another sign.

    Args:
        net: the network.
        limit_s: the solver stops after so many seconds, with the gap that is left. Ctrl-C is heard when it returns.
        seed: of the random points that give a first lower bound.

    Raises:
        ConfigError: the network is none, the time is not above 0, or the seed is none.
        DataError: pre-activations overflow.
        ImplUnavailable: the solver gave up without bounds.

    Cost: exponential in the worst case. Networks whose neurons exclude each other by few bits take seconds.

    Source: ours; the solver is HiGHS (Huangfu, Hall 2018) through scipy.
    """
    begin = time.perf_counter()
    check_net(net)
    end = begin + positive(limit_s, "limit_s")
    point, found = _guess(net, seed)
    rows, least, sure = _rows(net)
    reach = np.abs(rows).sum(axis=1)
    always = -reach >= sure
    open_ = (reach >= least) & ~always
    limit, reason = int(always.sum() + open_.sum()), "no neuron excludes another"
    cuts: list[tuple[Array, float]] = []
    while open_.any() and found < limit:
        point_z, proved, reason = _solve(rows[open_], least[open_], cuts, limit_s=max(end - time.perf_counter(), 0.01))
        limit = min(limit, int(always.sum()) + proved)
        if point_z is None:
            break
        at, chosen = point_z
        fires = np.concatenate([block for _, block in net.firing(at[None])])[0]
        if (count := int(fires.sum())) > found:
            point, found = at, count
        silent = chosen & ~fires[open_]
        if not silent.any() or time.perf_counter() > end:
            break
        cuts += [_cut(rows[open_], at, int(j)) for j in np.flatnonzero(silent)]
    return MostActive(
        found=found, limit=max(limit, found), point=point, seconds=time.perf_counter() - begin, reason=reason
    )


def _rows(net: SparseActivationNet) -> tuple[Array, Array, Array]:
    """Weights, each row's largest 1; what ``<w, x>`` is at least where a neuron may be active, and where it surely is.

    The two differ where no common unit was found, by the slack of the solver on both sides.
    """
    top = np.abs(net.weight).max(axis=1, initial=0)
    top = np.where(top > 0, top, 1.0)
    rows = net.weight / top[:, None]
    with np.errstate(over="ignore"):
        threshold = net.threshold / top
    least, sure = threshold - _SLACK, threshold + _SLACK
    for j, row in enumerate(rows):
        unit = _unit(np.abs(row))
        if unit is not None and math.isfinite(threshold[j]):
            least[j] = sure[j] = _between(np.abs(row), float(threshold[j]), unit)
    return rows, least, sure


def _unit(size: Array) -> float | None:
    """The largest number of which all these are multiples up to rounding, if none is more than 10^4 of it."""
    some = np.unique(size[size > 0])
    if not len(some):
        return 1.0
    parts = 1
    for ratio in (some / some[0]).tolist():
        nearest = Fraction(ratio).limit_denominator(_UNITS)
        if abs(float(nearest) - ratio) > _ROUNDING * ratio:
            return None
        parts = math.lcm(parts, nearest.denominator)
        if some[-1] / some[0] * parts > _UNITS:
            return None
    return float(some[0]) / parts


def _between(size: Array, threshold: float, unit: float) -> float:
    """Halfway between the last sum of these, with signs, that is not above the threshold, and the first that is.

    On signs the sums of whole numbers have one parity. A tie is what rounding cannot tell from one.
    """
    odd = int(np.rint(size / unit).sum()) % 2
    above = threshold + 4 * _ROUNDING * (float(size.sum()) + abs(threshold))
    next_ = math.floor(above / unit) + 1
    return (next_ + (next_ - odd) % 2 - 1) * unit


def _guess(net: SparseActivationNet, seed: int) -> tuple[Array, int]:
    x = cube.random_points(_GUESSES, net.n, seed=seed)
    counts = net.active_counts(x)
    best = int(counts.argmax())
    return x[best], int(counts[best])


def _cut(rows: Array, at: Array, j: int) -> tuple[Array, float]:
    """Neuron j, silent at a point, needs one of the signs there that count against it changed: ``row >= bound``."""
    s, n = rows.shape
    against = rows[j] * at < 0
    cut = np.zeros(n + s)
    cut[:n] = np.where(against, at, 0)  # t grows where x = 1 changes, and falls where x = -1 does
    cut[n + j] = -1
    return cut, -float((against & (at < 0)).sum())


def _solve(
    weight: Array, least: Array, cuts: list[tuple[Array, float]], *, limit_s: float
) -> tuple[tuple[Array, Array] | None, int, str]:
    """A point and whom it chose, a proved limit on how many of these neurons are active, and the solver's words."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, diags_array, hstack

    s, n = weight.shape
    reach, total = np.abs(weight).sum(axis=1), weight.sum(axis=1)
    # with x = 1 - 2 t: <w, 1> - 2 <w, t> - (least + reach) z >= -reach
    matrix: Any = hstack([csr_array(-2 * weight), diags_array(-(least + reach))], format="csc")
    constraints = [LinearConstraint(matrix, lb=-reach - total)]
    if cuts:
        constraints.append(
            LinearConstraint(csr_array(np.array([row for row, _ in cuts])), lb=np.array([low for _, low in cuts]))
        )
    found = milp(
        np.concatenate([np.zeros(n), -np.ones(s)]),
        constraints=constraints,
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
    if found.x is None:
        return None, proved, str(found.message)
    return ((1 - 2 * np.rint(found.x[:n])).astype(np.int8), found.x[n:] > 0.5), proved, str(found.message)
