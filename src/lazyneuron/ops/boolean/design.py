"""The matrix of Walsh features, never written out: products with it, its Gram matrix, its moments."""

from __future__ import annotations

import functools

import numpy as np
import torch

from lazyneuron.ops.array import Array, tensor_of
from lazyneuron.ops.boolean.operators import Impl, operators
from lazyneuron.ops.boolean.packing import pack_columns
from lazyneuron.ops.boolean.reference import columns
from lazyneuron.ops.boolean.subsets import check_degree, count_subsets, subset_table
from lazyneuron.ops.choice import BEST

_BLOCK = 1 << 24  # entries of a feature block that plain numpy works on
NATIVE_DEGREE = 16  # the compiled walk keeps one column for each element


class WalshDesign:
    """Features ``chi_T(x_a)`` for all ``|T| <= degree``, from rows of +-1, at a bit an entry of ``x``.

    Args:
        x: rows of +-1, shape (m, n).
        degree: d.
        impl: compiled or numpy.
    """

    def __init__(self, x: Array, degree: int, *, impl: Impl = "auto") -> None:
        self.m, self.n = x.shape
        self.degree = check_degree(self.n, degree)
        self.size = count_subsets(self.n, degree)
        self._ops = operators(impl) if degree <= NATIVE_DEGREE else None
        self.x = x
        self._bits = torch.from_numpy(pack_columns(x)) if self._ops is not None else None

    @functools.cached_property
    def subsets(self) -> Array:
        """The subsets in graded colex order, int16 of shape (N, max(d, 1))."""
        return subset_table(self.n, self.degree)

    def analysis(self, y: Array) -> Array:
        """``Phi^T y``, shape (N,)."""
        if self._ops is not None:
            target = tensor_of(y, dtype=np.float64)
            return np.asarray(self._ops.walsh_analysis(self._bits, target, self.degree, BEST).numpy())
        rows = self._rows()
        parts = (columns(self.x[b : b + rows], self.degree).T @ y[b : b + rows] for b in range(0, self.m, rows))
        return np.asarray(sum(parts, np.zeros(self.size)))

    def synthesis(self, coefficients: Array) -> Array:
        """``Phi c``, shape (m,)."""
        if self._ops is not None:
            given = tensor_of(coefficients, dtype=np.float64)
            return np.asarray(self._ops.walsh_synthesis(self._bits, given, self.m, self.degree, BEST).numpy())
        rows = self._rows()
        parts = [columns(self.x[b : b + rows], self.degree) @ coefficients for b in range(0, self.m, rows)]
        return np.concatenate(parts or [np.empty(0)])

    def gram(self) -> Array:
        """``Phi^T Phi``, exact whole numbers, shape (N, N): float32 from the moments natively, else float64.

        Entry (T, T') is the moment of the symmetric difference, so that only the moments of twice the degree are
        counted.
        """
        wide = min(2 * self.degree, self.n)
        if self._ops is not None and wide <= NATIVE_DEGREE and self.m < 2**24:
            moments = self._ops.walsh_moments(self._bits, self.m, wide, BEST)
            if self.degree == 0:
                return moments[:1].float().reshape(1, 1).numpy()  # type: ignore[no-any-return]
            found = self._ops.walsh_gram(torch.from_numpy(self.subsets), moments, self.n, BEST)
            return found.numpy()  # type: ignore[no-any-return]
        rows = self._rows()
        out: Array = np.zeros((self.size, self.size))
        for b in range(0, self.m, rows):
            phi = columns(self.x[b : b + rows], self.degree)
            out += phi.T @ phi
        return out

    def moments(self, degree: int | None = None) -> Array:
        """``sum_a chi_T(x_a)`` for all ``|T| <= degree`` (the design's by default), whole numbers, shape (N,)."""
        d = check_degree(self.n, self.degree if degree is None else degree)
        if self._ops is not None and d <= NATIVE_DEGREE:
            return np.asarray(self._ops.walsh_moments(self._bits, self.m, d, BEST).numpy())
        rows = max(_BLOCK // count_subsets(self.n, d), 1)
        parts = (columns(self.x[b : b + rows], d).sum(0) for b in range(0, self.m, rows))
        return sum(parts, np.zeros(count_subsets(self.n, d))).astype(np.int64)

    def _rows(self) -> int:
        return max(_BLOCK // self.size, 1)
