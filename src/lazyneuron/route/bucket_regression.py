"""Least squares in hashed buckets at nested scales; what the estimators are made of, without scikit-learn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyneuron.core.errors import DataError
from lazyneuron.ops.buckets.reference import check_finite
from lazyneuron.route.bucket_settings import BucketSettings
from lazyneuron.route.bucket_widths import finest_shift, hash_for, learned_metric
from lazyneuron.route.moments import Frame
from lazyneuron.route.prediction import CHUNK, predict
from lazyneuron.route.pyramid import MOST, Pyramid, Scale

_SAMPLE = 1 << 15
_MOST_HELD_OUT = 1 << 14
_WIDEST_AFFINE = 16
EXPECTED_STREAM = 10**6


class BucketRegression:
    """Additive statistics in buckets, and predictions from them.

    Call :meth:`start` with a sample, :meth:`add` with rows any number of times, then :meth:`predict`.

    Args:
        settings: what to do.

    Attributes:
        shift: the width in use, in powers of two of the finest; known after :meth:`build`.
        errors: held-out mean squared error by shift; None stands for the single bucket.
    """

    def __init__(self, settings: BucketSettings) -> None:
        self.settings = settings
        self.pyramids: list[Pyramid] = []
        self.held_out: tuple[Tensor, Tensor] | None = None
        self.errors: dict[int | None, float] = {}
        self.shift: int | None = None
        self.chosen = False
        self.rows = 0
        self._scales: list[list[Scale]] | None = None
        self._generator = torch.Generator().manual_seed(settings.seed + 1)

    @property
    def frame(self) -> Frame:
        """Standardisation, outputs, degree."""
        return self.pyramids[0].frame

    def start(self, x: Tensor, y: Tensor, *, rows: float | None = None) -> None:
        """Fix standardisation, hashes and widths from a sample.

        Args:
            x: (sample, features) float32 or float64.
            y: (sample, outputs) float64.
            rows: how many rows there will be; None for a stream of unknown length, taken as 10**6.

        Raises:
            DataError: no row, or rows that are not finite.
        """
        if not len(x):
            raise DataError("There is no row to learn from; pass at least one.")
        s, wide = self.settings, x.to(torch.float64)
        check_finite(wide)
        degree = (1 if x.shape[1] <= _WIDEST_AFFINE else 0) if s.degree is None else s.degree
        frame = Frame.of(wide, outputs=y.shape[1], degree=degree)
        hashes = min(x.shape[1], 8) if s.hashes is None else s.hashes
        metric = None
        if s.directions == "learned" and len(x) > 1:
            few = torch.randperm(len(x), generator=torch.Generator().manual_seed(s.seed))[:_SAMPLE]
            metric = learned_metric(x[few], y[few], frame, hashes=hashes, seed=s.seed + 100, impl=s.impl)
        expected = EXPECTED_STREAM if rows is None else rows
        for number in range(s.tables):
            orthogonal = s.directions != "gaussian"
            affine = hash_for(frame, hashes=hashes, metric=metric, orthogonal=orthogonal, seed=s.seed * 1000 + number)
            base = self._base(affine.vectors(x[:_SAMPLE], impl=s.impl), expected, frame)
            self.pyramids.append(Pyramid(affine, frame, capacity=s.capacity, impl=s.impl, base=base))

    def _base(self, vectors: Tensor, rows: float, frame: Frame) -> int:
        if self.settings.scale is not None:
            return MOST - self.settings.scale
        others = 0.5 * (1 + frame.features) if frame.degree else 1.0
        return finest_shift(vectors, rows, others=others, impl=self.settings.impl)

    def add(self, x: Tensor, y: Tensor, *, hold_out: bool = True) -> None:
        """Add rows, a share of which is held out until there are enough of them.

        Args:
            x: (rows, features).
            y: (rows, outputs) float64.
            hold_out: whether any may be held out.

        Raises:
            DataError: rows that are not finite or lie in no bucket; nothing is added then.
        """
        chunks = range(0, len(x), CHUNK)
        if len(chunks) > 1:
            for a in chunks:
                self.pyramids[0].vectors(x[a : a + CHUNK])
        self._scales = None
        for a in chunks:
            xs, ys = x[a : a + CHUNK], y[a : a + CHUNK]
            named = [pyramid.vectors(xs) for pyramid in self.pyramids]
            if hold_out and self.settings.scale is None:
                chosen = self._hold_out(xs, ys)
                if bool(chosen.any()):
                    xs, ys, named = xs[~chosen], ys[~chosen], [vectors[~chosen] for vectors in named]
            z = self.frame.standardise(xs)
            for pyramid, vectors in zip(self.pyramids, named, strict=True):
                pyramid.add(vectors, z, ys)
            self.rows += len(xs)

    def _hold_out(self, x: Tensor, y: Tensor) -> Tensor:
        """Put some rows aside, and say which."""
        have = 0 if self.held_out is None else len(self.held_out[0])
        chosen = torch.rand(len(x), generator=self._generator) < self.settings.held_out
        chosen &= chosen.cumsum(0) <= _MOST_HELD_OUT - have
        if self.rows == 0 and bool(chosen.all()):
            chosen[:1] = False
        if bool(chosen.any()):
            x, y = x[chosen], y[chosen]
            before = (x[:0], y[:0]) if self.held_out is None else self.held_out
            self.held_out = torch.cat([before[0], x]), torch.cat([before[1], y])
        return chosen

    def build(self, *, finish: bool = False) -> None:
        """Choose the width on the held-out rows and solve every bucket.

        Args:
            finish: then learn from the held-out rows too; they choose no more.
        """
        shrinkage = self.settings.shrinkage
        if self.settings.scale is not None:
            self.shift = max([MOST - self.settings.scale, *(p.base for p in self.pyramids)])
        elif self.held_out is not None:
            self._scales = [p.scales(shrinkage=shrinkage) for p in self.pyramids]
            self._choose()
        elif not self.chosen:
            self.shift = max(p.base for p in self.pyramids) + 1
        self.chosen = True
        if finish and self.held_out is not None:
            rows, self.held_out = self.held_out, None
            self.add(*rows, hold_out=False)
        if self.shift is not None:
            self.shift = max([self.shift, *(p.base for p in self.pyramids)])
        coarsest = MOST + 1 if self.shift is None else self.shift
        if self._scales is None:
            self._scales = [p.scales(shrinkage=shrinkage, coarsest=coarsest) for p in self.pyramids]

    def _choose(self) -> None:
        assert self.held_out is not None and self._scales is not None
        x, y = self.held_out
        shifts: list[int | None] = [s.shift for s in max(self._scales, key=lambda found: -len(found))]
        self.errors = {}
        for shift in shifts:
            self.shift = shift
            self.errors[shift] = float((predict(x, self._in_use())[0] - y).square().mean())
        self.shift = min(shifts, key=lambda shift: self.errors[shift])

    def built(self) -> BucketRegression:
        """This model, built if rows have come since."""
        if self._scales is None:
            self.build()
        return self

    @property
    def scales(self) -> list[list[Scale]]:
        """For each table the scales that were solved, coarsest first."""
        found = self.built()._scales
        assert found is not None
        return found

    def ladder(self, number: int) -> list[Scale]:
        """The scales in use of one table, from the single bucket to the chosen width."""
        return [s for s in self.scales[number] if s.shift is None or (self.shift is not None and s.shift >= self.shift)]

    @property
    def bucket_width(self) -> float:
        """Width of the buckets in use, in standard deviations of the features; infinite for the single bucket."""
        return math.inf if self.shift is None else self.pyramids[0].affine.width * 2.0**self.shift

    def predict(self, x: Tensor) -> Tensor:
        """The mean over tables of each row's bucket; an empty bucket is answered for by the coarser scale.

        Args:
            x: (rows, features) float32 or float64.

        Returns:
            (rows, outputs) float64.

        Raises:
            DataError: NaN or infinity.

        Cost: FLOPs a row: ``tables * (2 features hashes + degree * 2 features outputs)``.
        """
        return predict(x, self._in_use())[0]

    def uncertainty(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What a prediction rests on.

        Args:
            x: (rows, features).

        Returns:
            Rows in the bucket, mean over tables (rows,); and the root mean square residual in it (rows, outputs).
        """
        return predict(x, self._in_use(), facts=True)[1:]

    def _in_use(self) -> list[tuple[Pyramid, list[Scale]]]:
        return [(pyramid, self.ladder(number)) for number, pyramid in enumerate(self.pyramids)]
