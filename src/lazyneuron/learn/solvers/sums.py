"""Sums over rows from which averaging and least squares can be solved: they add up over batches and over processes."""

from __future__ import annotations

import dataclasses

import numpy as np

from lazyneuron.core.errors import DataError
from lazyneuron.learn.solvers.least_squares import from_gram
from lazyneuron.learn.solvers.solution import Solution
from lazyneuron.ops.boolean.array import Array
from lazyneuron.ops.boolean.design import WalshDesign


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sums:
    """Additive statistics of rows.

    Attributes:
        rows: m.
        labels: ``Phi^T y``.
        ones: ``Phi^T 1``.
        gram: ``Phi^T Phi``, or None when only averaging is wanted.
        low, high: range of the labels.
    """

    rows: int
    labels: Array
    ones: Array
    gram: Array | None
    low: float
    high: float

    @staticmethod
    def of(design: WalshDesign, y: Array, *, gram: bool) -> Sums:
        """The sums of some rows."""
        return Sums(
            rows=len(y),
            labels=design.analysis(y),
            ones=design.moments().astype(np.float64),
            gram=design.gram().astype(np.float64) if gram else None,
            low=float(y.min()),
            high=float(y.max()),
        )

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            rows=self.rows + other.rows,
            labels=self.labels + other.labels,
            ones=self.ones + other.ones,
            gram=None if self.gram is None or other.gram is None else self.gram + other.gram,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )

    def averages(self, *, center: bool) -> Solution:
        """Averaging."""
        mean = float(self.labels[0]) / self.rows if center else 0.0
        found = (self.labels - mean * self.ones) / self.rows
        found[0] += mean
        return Solution(coefficients=found, gram=None, method="averaging, from sums")

    def least_squares(self, *, alpha: float) -> Solution:
        """Least squares or ridge.

        Raises:
            DataError: there are fewer rows than features, and no penalty.
        """
        assert self.gram is not None
        if not alpha and self.rows < len(self.labels):
            raise DataError(
                f"Least squares needs at least as many rows as features, got {self.rows} rows so far and "
                f"{len(self.labels)} features; begin with more rows, or take solver='ridge'."
            )
        return from_gram(self.gram.copy(), self.labels, self.rows, alpha=alpha)
