"""Fitting over several processes: every rank adds its own rows, and the ranks' sums are added up bucket by bucket.

Everything goes through ``torch.distributed``; start processes with ``torchrun``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lazyneuron.core.errors import DataError, LazyNeuronError
from lazyneuron.route.bucket_regression import BucketRegression
from lazyneuron.route.bucket_settings import BucketSettings
from lazyneuron.route.pyramid import Pyramid

_SAMPLE = 8192
T = TypeVar("T")
Batch = tuple[Tensor, Tensor]


def fit_distributed(settings: BucketSettings, batches: Iterable[Batch], *, group: Any = None) -> BucketRegression:
    """Fit one model to the rows of all ranks; every rank gets the whole model, the same to the bit.

    The sums are those of a single process up to the order of additions (exact where sums are exact, as for
    integers that fit). Held-out rows are those of the ranks.

    Args:
        settings: the same on every rank.
        batches: this rank's rows: (rows, features) and (rows, outputs) float64; at least one batch.
        group: process group; None for the default one.

    Returns:
        The model, built.

    Raises:
        DataError: on all ranks, when ranks disagree on columns or settings, or when one has bad rows or has gone; a
            rank that vanishes is noticed at the latest after the group's own time-out.

    Cost: each rank sends every bucket of its own once to the bucket's owner and receives all merged buckets once.
    """
    feed = iter(batches)
    first = _together(lambda: next(feed, None), group)
    model = _together(lambda: _start(settings, first, group), group)
    _together(lambda: _add_all(model, first, feed), group)
    _guarded(lambda: reduce_(model, group=group))
    _together(lambda: model.build(finish=True), group)
    return model


def _start(settings: BucketSettings, first: Batch | None, group: Any) -> BucketRegression:
    facts = None if first is None else (first[0].shape[1], first[1].shape[1])
    known = _gather_objects((facts, dataclasses.astuple(settings)), group)
    if any(other[0] is None for other in known):
        raise DataError(f"Rank {[o[0] for o in known].index(None)} has no row; give every rank at least one batch.")
    if any(other != known[0] for other in known):
        shapes = [o[0] for o in known]
        raise DataError(f"The ranks disagree on (features, outputs) or settings: {shapes}; use one schema.")
    assert first is not None
    share = max(1, _SAMPLE // len(known))
    few = torch.randperm(len(first[0]), generator=torch.Generator().manual_seed(settings.seed))[:share]
    sample = _gather_rows([first[0][few].double(), first[1][few]], group)
    model = BucketRegression(settings)
    model.start(sample[0], sample[1])
    return model


def _add_all(model: BucketRegression, first: Batch | None, rest: Iterator[Batch]) -> None:
    model._generator.manual_seed(model.settings.seed + 1 + dist.get_rank())
    assert first is not None
    model.add(*first)
    for batch in rest:
        model.add(*batch)


def reduce_(model: BucketRegression, *, group: Any = None) -> None:
    """Make every rank's statistics those of all ranks together.

    Args:
        model: started alike on all ranks.
        group: process group.

    Raises:
        DataError: a rank has gone.
    """
    base = [max(p) for p in zip(*_gather_objects([p.base for p in model.pyramids], group), strict=True)]
    for number, pyramid in enumerate(model.pyramids):
        own = shard(pyramid, base=base[number], group=group)
        parts = _gather_rows([own.table.vectors, own.sums[: len(own.table)]], group)
        whole = _empty_like(pyramid, base=max(_gather_objects(own.base, group)))
        whole.merge(parts[0] >> (whole.base - own.base), parts[1], base=whole.base)
        model.pyramids[number] = whole
    rows = torch.tensor([model.rows])
    dist.all_reduce(rows, group=group)
    model.rows = int(rows)
    width = model.frame.features, model.frame.outputs
    none = torch.empty(0, width[0], dtype=torch.float64), torch.empty(0, width[1], dtype=torch.float64)
    own_x, own_y = model.held_out or none
    x, y = _gather_rows([own_x.double(), own_y], group)
    model.held_out = (x, y) if len(x) else None
    model._scales = None


def shard(pyramid: Pyramid, *, base: int, group: Any = None) -> Pyramid:
    """The part of all ranks' buckets that this rank owns: a table sharded by slot, each bucket on one rank.

    Args:
        pyramid: this rank's statistics.
        base: shift at which buckets are exchanged; not finer than any rank's.
        group: process group.

    Returns:
        A pyramid whose buckets, over the ranks, are disjoint and add up to everything.
    """
    size = dist.get_world_size(group)
    local = _empty_like(pyramid, base=pyramid.base)
    local.merge(pyramid.table.vectors, pyramid.sums[: len(pyramid.table)], base=pyramid.base)
    local.merge(torch.empty(0, pyramid.affine.hashes, dtype=torch.int32), local.sums[:0], base=base)
    vectors, sums = local.table.vectors, local.sums[: len(local.table)]
    owner = _owner(vectors, size)
    order = owner.argsort(stable=True)
    counts = torch.bincount(owner, minlength=size)
    taken = _exchange([vectors[order], sums[order]], counts, group)
    own = _empty_like(pyramid, base=base, capacity=1 << 31)
    own.merge(taken[0], taken[1], base=base)
    return own


def _owner(vectors: Tensor, size: int) -> Tensor:
    mixed = torch.zeros(len(vectors), dtype=torch.int64)
    for column in vectors.t().long():
        mixed = (mixed * 1000003 + column) & 0xFFFFFFFFFFFF
    return (mixed ^ (mixed >> 21)) % size


def _empty_like(pyramid: Pyramid, *, base: int, capacity: int | None = None) -> Pyramid:
    room = pyramid.capacity if capacity is None else capacity
    return Pyramid(pyramid.affine, pyramid.frame, capacity=room, impl=pyramid.impl, base=base)


def _exchange(parts: list[Tensor], counts: Tensor, group: Any) -> list[Tensor]:
    """Rows sorted by receiver to their receivers; rows come back in the order of the senders."""
    incoming = torch.empty_like(counts)
    dist.all_to_all_single(incoming, counts, group=group)
    found = []
    for part in parts:
        out = torch.empty(int(incoming.sum()), *part.shape[1:], dtype=part.dtype)
        dist.all_to_all_single(out, part.contiguous(), incoming.tolist(), counts.tolist(), group=group)
        found.append(out)
    return found


def _gather_rows(parts: list[Tensor], group: Any) -> list[Tensor]:
    """Each part's rows of all ranks, in the order of the ranks."""
    size = dist.get_world_size(group)
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
    dist.all_gather(counts, torch.tensor([len(parts[0])]), group=group)
    longest = max(int(c) for c in counts)
    found = []
    for part in parts:
        padded = torch.zeros(longest, *part.shape[1:], dtype=part.dtype)
        padded[: len(part)] = part
        received = [torch.empty_like(padded) for _ in range(size)]
        dist.all_gather(received, padded, group=group)
        found.append(torch.cat([r[: int(c)] for r, c in zip(received, counts, strict=True)]))
    return found


def _gather_objects(value: T, group: Any) -> list[T]:
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, value, group=group)
    return found


def _together(work: Callable[[], T], group: Any) -> T:
    """Do a rank's own work, and raise on every rank when any of them failed."""
    result, problem = None, None
    try:
        result = work()
    except LazyNeuronError as error:
        problem = str(error)
    problems = _guarded(lambda: _gather_objects(problem, group))
    wrong = [rank for rank, sentence in enumerate(problems) if sentence is not None]
    if wrong:
        raise DataError(f"Rank {wrong[0]} failed: {problems[wrong[0]]}")
    return result  # type: ignore[return-value]


def _guarded(work: Callable[[], T]) -> T:
    try:
        return work()
    except RuntimeError as error:
        if isinstance(error, LazyNeuronError):
            raise
        first = (str(error).splitlines() or [""])[0]
        raise DataError(f"Another rank has gone or does not answer ({first}); see its own message.") from error
