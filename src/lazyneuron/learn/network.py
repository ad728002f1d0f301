"""Networks of the class: one hidden layer of ReLUs, of which few are active on any input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.core.numbers import real
from lazyneuron.learn import cube
from lazyneuron.learn.checks import finite_array
from lazyneuron.ops.array import Array

_ENTRIES = 1 << 22  # pre-activations computed at a time
_LARGEST = 1e150


@dataclasses.dataclass(frozen=True, eq=False)
class SparseActivationNet:
    """``h(x) = sum_j u_j max(<w_j, x> - b_j, 0)``.

    Attributes:
        weight: rows ``w_j``, shape (s, n).
        threshold: ``b_j``, shape (s,).
        outer: ``u_j``, shape (s,).

    Raises:
        ShapeError: the shapes do not fit together.
        DataError: a number is not finite.

    Example:
        >>> SparseActivationNet([[1.0, 1.0]], [1.0], [3.0])([[1, 1], [1, -1]]).tolist()
        [3.0, 0.0]

    Source:
        Awasthi, Dikkala, Kamath, Meka (2024), section 2.
    """

    weight: Array
    threshold: Array
    outer: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", finite_array(self.weight, "weight", ndim=2))
        object.__setattr__(self, "threshold", finite_array(self.threshold, "threshold", ndim=1))
        object.__setattr__(self, "outer", finite_array(self.outer, "outer", ndim=1))
        if not len(self.weight) == len(self.threshold) == len(self.outer):
            raise ShapeError(
                f"A network has as many thresholds and outer weights as rows of weight, got {len(self.weight)} rows, "
                f"{len(self.threshold)} thresholds and {len(self.outer)} outer weights."
            )

    @property
    def n(self) -> int:
        """Number of inputs."""
        return int(self.weight.shape[1])

    @property
    def s(self) -> int:
        """Number of neurons."""
        return int(self.weight.shape[0])

    def __call__(self, x: object) -> Array:
        """Values at the rows of ``x``, shape (m,)."""
        return np.concatenate([np.maximum(z, 0) @ self.outer for _, z in self._in_blocks(x)] or [np.empty(0)])

    def active_counts(self, x: object) -> Array:
        """How many neurons are active at each row of ``x``, int64 of shape (m,); ties count as silent."""
        return np.concatenate([fires.sum(axis=1) for _, fires in self.firing(x)] or [np.empty(0, np.int64)])

    def firing(self, x: object) -> Iterator[tuple[Array, Array]]:
        """Blocks of rows with which neurons are active on them, bool of shape (rows, s)."""
        for rows, z in self._in_blocks(x):
            yield rows, z > self.tolerance(rows)

    def tolerance(self, rows: Array) -> Array:
        """What a pre-activation has to exceed to count as active, of shape (m, s), or (1, s) for all rows alike.

        Zero where rounding cannot occur (whole numbers throughout), else ``64 eps (max |x| |w|_1 + |b|)`` of the row
        itself: a tie computed in another order would otherwise make neurons up.

        Args:
            rows: (m, n).

        Raises:
            DataError: pre-activations of this size overflow.
        """
        scale = np.abs(rows).max(axis=1, initial=0)[:, None]
        if len(scale) and scale.min() == scale.max():
            scale = scale[:1]
        with np.errstate(over="ignore"):
            size = scale * np.abs(self.weight).sum(1) + np.abs(self.threshold)
        if not np.isfinite(size).all():
            raise DataError("A pre-activation may overflow on these rows; scale them or the network.")
        if self.is_integral and size.max(initial=0) < 2**52 and bool((rows == np.rint(rows)).all()):
            return np.zeros((1, self.s))
        return np.asarray(64 * np.finfo(np.float64).eps * size)

    @property
    def is_integral(self) -> bool:
        """Whether weights and thresholds are whole numbers that double precision adds exactly."""
        whole = (self.weight == np.rint(self.weight)).all() and (self.threshold == np.rint(self.threshold)).all()
        with np.errstate(over="ignore"):
            return bool(whole and np.abs(self.weight).sum() + np.abs(self.threshold).sum() < 2**52)

    def rebalance(self) -> tuple[Array, Array, Array]:
        """The same function as ``sum_j e_j max(<v_j, x> - beta_j, 0)`` with signs ``e_j``.

        Returns:
            ``v`` of shape (s, n), ``beta`` and ``e`` of shape (s,); zero, zero and 1 where ``u_j`` is zero.

        Raises:
            DataError: the numbers are so large that sums of their squares, on which every bound rests, would overflow.
        """
        size = np.abs(self.outer)
        with np.errstate(over="ignore"):
            v, beta = size[:, None] * self.weight, size * self.threshold
        top = max(float(np.abs(v).max(initial=0)), float(np.abs(beta).max(initial=0)))
        if not top * max(v.size, 1) < _LARGEST:
            raise DataError(f"Squares of weights overflow, the largest is {top:.3g}; scale the network.")
        return v, beta, np.where(self.outer < 0, -1.0, 1.0)

    def norms(self) -> tuple[float, float]:
        """``W = max_j |v_j|`` and ``B = max_j |beta_j|`` of the rebalanced form."""
        v, beta, _ = self.rebalance()
        return float(np.linalg.norm(v, axis=1).max(initial=0)), float(np.abs(beta).max(initial=0))

    def scaled(self, factor: float) -> SparseActivationNet:
        """The function times a factor.

        Raises:
            ConfigError: the factor is no finite number.
            DataError: an outer weight overflows.
        """
        with np.errstate(over="ignore"):
            return dataclasses.replace(self, outer=self.outer * real(factor, "The factor"))

    def table(self) -> Array:
        """Values at all 2^n points of the cube, in the order of :mod:`lazyneuron.learn.cube`.

        Raises:
            ConfigError: n is too large.
        """
        cube.check_enumerable(self.n)
        rows = max(_ENTRIES // max(self.s, 1), 1)
        return np.concatenate([self(block) for _, block in cube.blocks(self.n, rows=rows)])

    def _in_blocks(self, x: object) -> Iterator[tuple[Array, Array]]:
        given = finite_array(x, "X", ndim=2)
        if given.shape[1] != self.n:
            raise ShapeError(f"The network has {self.n} inputs, got rows of {given.shape[1]}.")
        rows = max(_ENTRIES // max(self.s, 1), 1)
        for begin in range(0, len(given), rows):
            block = given[begin : begin + rows]
            with np.errstate(over="ignore", invalid="ignore"):
                z = block @ self.weight.T - self.threshold
            if not np.isfinite(z).all():
                raise DataError("A pre-activation overflows on these rows; scale them or remove what is extreme.")
            yield block, z


def check_net(net: object) -> SparseActivationNet:
    """The network, if it is one.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(net, SparseActivationNet):
        raise ConfigError(f"A network is a SparseActivationNet, got {described(net)}; of an instance pass its `net`.")
    return net
