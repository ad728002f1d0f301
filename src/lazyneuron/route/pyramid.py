"""One table of buckets at all its scales: sums at the finest, every coarser one by adding up."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lazyneuron.core.errors import DataError
from lazyneuron.ops.buckets.operators import accumulate_, native_ops, new_rows, pack
from lazyneuron.ops.buckets.reference import moment_width
from lazyneuron.route.affine_hash import AffineHash
from lazyneuron.route.moments import Frame, solve
from lazyneuron.route.table import BucketTable

MOST = 20  # halvings of the coarsest width


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """The buckets of one width, ready for prediction.

    Attributes:
        shift: width in powers of two of the hash's own one; None for the single bucket that holds everything.
        table: names of the buckets; None for that single bucket.
        values: (buckets, columns) coefficients for raw rows.
        counts: (buckets,) rows in each.
        spread: (buckets, outputs) root mean square residual.
        packed: names and coefficients together, for the native operator; None without it.
    """

    shift: int | None
    table: BucketTable | None
    values: Tensor
    counts: Tensor
    spread: Tensor
    packed: tuple[Tensor, Tensor] | None = None


class Pyramid:
    """Additive statistics of one table.

    Args:
        affine: the hash at the finest width, on raw rows.
        frame: standardisation, outputs and degree.
        capacity: most buckets at the finest scale that is kept. When a batch would exceed it, the finest scale is given
            up and pairs of its buckets are joined along every hash, until it fits.
        impl: as for :class:`BucketTable`.
        base: shift of the finest scale that is kept.
    """

    def __init__(self, affine: AffineHash, frame: Frame, *, capacity: int, impl: str = "auto", base: int = 0) -> None:
        self.affine, self.frame, self.capacity = affine, frame, capacity
        self.base, self.impl = base, impl
        self.width = moment_width(frame.features, frame.outputs, degree=frame.degree)
        self.table = self._new_table()
        self.sums = torch.zeros(1024, self.width, dtype=torch.float64)

    def _new_table(self) -> BucketTable:
        return BucketTable(self.affine.hashes, impl=self.impl)

    def vectors(self, x: Tensor) -> Tensor:
        """The finest buckets of raw rows.

        Raises:
            DataError: rows that lie in no bucket.
        """
        return self.affine.vectors(x, shift=self.base, impl=self.impl)

    def add(self, vectors: Tensor, z: Tensor, y: Tensor) -> None:
        """Add rows.

        Args:
            vectors: (rows, hashes) of :meth:`vectors`.
            z: (rows, features) standardised, float64.
            y: (rows, outputs) float64.
        """
        slots = self._slots(vectors)
        accumulate_(self.sums, slots, z, y, degree=self.frame.degree, ops=native_ops(self.impl))

    def _slots(self, vectors: Tensor) -> Tensor:
        while True:
            before = len(self.table)
            slots = self.table.add(vectors)
            if len(self.table) <= self.capacity:
                self._reserve(len(self.table))
                return slots
            self._coarsen(before)
            vectors = vectors >> 1

    def _reserve(self, rows: int) -> None:
        if rows <= len(self.sums):
            return
        sums = new_rows(max(rows, 2 * len(self.sums)), self.width, dtype=torch.float64, ops=native_ops(self.impl))
        sums[: len(self.sums)] = self.sums
        sums[len(self.sums) :] = 0
        self.sums = sums

    def _coarsen(self, used: int) -> None:
        """Join pairs of buckets along every hash; only the first ``used`` hold sums."""
        if self.base >= 31:
            raise DataError(f"A capacity of {self.capacity} buckets is too small for any width; raise it.")
        table = self._new_table()
        slots = table.add(self.table.vectors[:used] >> 1)
        sums = torch.zeros(max(1024, len(table)), self.width, dtype=torch.float64)
        sums.index_add_(0, slots, self.sums[:used])
        self.table, self.sums, self.base = table, sums, self.base + 1

    def merge(self, vectors: Tensor, sums: Tensor, *, base: int) -> None:
        """Add another part's statistics, of the same hash and frame.

        Args:
            vectors: (buckets, hashes) int32 at ``base``.
            sums: (buckets, width) float64.
            base: the other part's finest shift.
        """
        while self.base < base:
            self._coarsen(len(self.table))
        slots = self._slots(vectors >> (self.base - base))
        self.sums.index_add_(0, slots, sums)

    def scales(self, *, shrinkage: float, coarsest: int = 0) -> list[Scale]:
        """Predictors of all scales, from the single bucket to the finest.

        Args:
            shrinkage: see :func:`lazyneuron.route.moments.solve`.
            coarsest: leave out the scales finer than this shift.
        """
        steps = self._ladder()
        frame, root = self.frame, steps[-1][1].sum(0, keepdim=True)
        values, spread = solve(root, frame, parent=_flat(root, frame), shrinkage=0.0 if not frame.degree else 1e-6)
        found = [Scale(shift=None, table=None, values=frame.to_raw(values), counts=root[:, 0], spread=spread)]
        up = torch.zeros(len(steps[-1][0]), dtype=torch.int64)
        for number in range(len(steps) - 1, -1, -1):
            table, sums, _ = steps[number]
            shift = self.base + number
            if shift < coarsest:
                break
            values, spread = solve(sums, frame, parent=values[up], shrinkage=shrinkage)
            raw, ops = frame.to_raw(values).contiguous(), native_ops(self.impl)
            packed = None if ops is None or table.native is None else pack(table.native[1], raw, ops=ops)
            counts = sums[:, 0].clone()
            found.append(Scale(shift=shift, table=table, values=raw, counts=counts, spread=spread, packed=packed))
            up = steps[number - 1][2] if number else up
        return found

    def _ladder(self) -> list[tuple[BucketTable, Tensor, Tensor]]:
        """Table, sums, and each slot's slot one scale coarser, from the finest on."""
        table, sums = self.table, self.sums[: len(self.table)]
        steps = []
        for _ in range(self.base, max(MOST, self.base) + 1):
            coarse = self._new_table()
            up = coarse.add(table.vectors >> 1)
            steps.append((table, sums, up))
            joined = torch.zeros(len(coarse), self.width, dtype=torch.float64).index_add_(0, up, sums)
            table, sums = coarse, joined
        return steps


def _flat(root: Tensor, frame: Frame) -> Tensor:
    """The constant polynomial of the overall mean."""
    flat = torch.zeros(1, frame.outputs, 1 + frame.degree * frame.features, dtype=torch.float64)
    flat[:, :, 0] = root[:, 1 : 1 + frame.outputs] / root[:, :1]
    return flat.reshape(1, -1)
