"""Follow what a block sees while it runs: choose its paths again from densities and times."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lazyneuron.accelerate.path import DENSE, Path, Shares, SharesByPath
from lazyneuron.accelerate.policy.choice import BUCKETS, Candidates, Table
from lazyneuron.core.timing import timed

REVIEW_EVERY = 64  # calls between two looks at the density
PROBE_EVERY = 512  # calls, the last one dense, between two looks whether sparse execution would pay again
LOOKS = 3  # times taken of a path in a bucket before its cost is corrected; the least counts

Runner = Callable[[Path], Callable[[Tensor], Tensor]]


class Following:
    """Which path every bucket of token counts takes, and what is known about their costs.

    Densities come from the kernels' own counts. Times come from looks: once in a while another path than the chosen one
    runs too, and the next call of the chosen one is timed, each finding the caches as any call does.

    Args:
        candidates: predicted or measured costs.
        table: the path of every bucket at first.
        shares: those with which that table was made.
        d_hidden: neurons of the block.
    """

    def __init__(self, candidates: Candidates, table: Table, shares: SharesByPath, d_hidden: int) -> None:
        self.candidates = candidates
        self.table = table
        self.shares = dict(shares)
        self._now = self.shares
        self.d_hidden = d_hidden
        self._calls = 0
        self._reviews = 0
        self._counts: Tensor | None = None
        self._seen = (0, 0, 0)
        self._pending: tuple[int, Path] | None = None  # the bucket and path of which the next call is to be timed
        self._times: dict[tuple[int, Path], list[float]] = {}

    def is_due(self, bucket: int, path: Path) -> bool:
        """Count a call that takes a path; is it time for :meth:`review`?"""
        self._calls += 1
        if self._calls >= (PROBE_EVERY if path is DENSE else REVIEW_EVERY):
            return True
        return self._pending is not None and self._pending == (bucket, path)

    def calls_ahead(self, bucket: int, path: Path) -> int:
        """How many calls that take a sparse path are left before one is due."""
        return 0 if self._pending == (bucket, path) else max(REVIEW_EVERY - 1 - self._calls, 0)

    def answered(self, calls: int) -> None:
        """Count calls that were not due."""
        self._calls += calls

    def review(self, x: Tensor, bucket: int, *, counts: Tensor, run: Runner) -> tuple[Tensor | None, bool]:
        """Look at densities and times, and maybe choose another table.

        Args:
            x: the input of this call.
            bucket: of its token count.
            counts: what the kernels add to.
            run: path -> callable.

        Returns:
            The output, if this call was run and timed here; and whether :attr:`table` changed.
        """
        before, path = self.table, self.table[bucket]
        if self._pending == (bucket, path):
            self._pending = None
            return self._timed(x, bucket, path, run), False
        if counts is not self._counts:  # other weights were packed, which are counted from zero
            self._counts, self._seen = counts, (0, 0, 0)
        self._calls = 0
        self._look(x, bucket, path, run)
        self._follow_density(path, counts)
        self._correct(bucket)
        self.table = self.candidates.choose(self._now) if self._now else before
        return None, self.table != before

    def _look(self, x: Tensor, bucket: int, path: Path, run: Runner) -> None:
        """Time the path that the chosen one competes with, at first often, then rarely."""
        self._reviews += 1
        often = PROBE_EVERY // REVIEW_EVERY
        if path is DENSE:
            if self.candidates.worth_probing(bucket):
                for other in (self._probe_path(), DENSE):
                    self._timed(x, bucket, other, run)
        elif self._reviews <= LOOKS or self._reviews % often == 0:
            self._timed(x, bucket, DENSE, run)
            self._pending = (bucket, path)

    def _follow_density(self, path: Path, counts: Tensor) -> None:
        now = self._totals(counts)
        computed, fired, tokens = (now[k] - self._seen[k] for k in range(3))
        self._seen = now
        if tokens:
            pairs = tokens * self.d_hidden
            ran = self._probe_path() if path is DENSE else path
            self._now = self._shares_now(ran, Shares(computed / pairs, fired / pairs))

    def _totals(self, counts: Tensor) -> tuple[int, int, int]:
        computed, fired, tokens = counts.tolist()[:3]
        return computed, fired, tokens

    def _probe_path(self) -> Path:
        """What runs beside dense: a certified path if there is one, since it counts what fires."""
        return min(self.candidates.lines, key=lambda path: path.planes == 0)

    def _timed(self, x: Tensor, bucket: int, path: Path, run: Runner) -> Tensor:
        y, took_us = timed(run(path), x)
        full = 2**bucket if bucket < BUCKETS - 1 else x.numel() // x.shape[-1]
        # times of a bucket are compared as if its inputs were of its largest token count
        self._times.setdefault((bucket, path), []).append(took_us * full * x.shape[-1] / max(x.numel(), 1))
        return y

    def _correct(self, bucket: int) -> None:
        """Use the times of a bucket once there are enough of two paths."""
        seen = {path: times for (at, path), times in self._times.items() if at == bucket and len(times) >= LOOKS}
        known = {path: (min(times), self._now[path]) for path, times in seen.items() if path in self._now}
        if DENSE in seen and known:
            self.candidates = self.candidates.corrected(bucket, min(seen[DENSE]), known)
            for path in (DENSE, *known):
                del self._times[bucket, path]

    def _shares_now(self, ran: Path, seen: Shares) -> dict[Path, Shares]:
        """What each path would compute, from what one path did: they keep the proportion that they had before."""
        before = {path: self.shares[path].computed for path in self.candidates.lines if path in self.shares}
        scale = seen.computed / before[ran] if before.get(ran) else 0.0
        computed = {path: min(1.0, scale * share) for path, share in before.items() if scale}
        return {path: seen._replace(computed=computed.get(path, seen.computed)) for path in self.candidates.lines}
