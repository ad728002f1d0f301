"""Running counts of one block's firing neurons, kept on the device that the block runs on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from lazyneuron.measure.lanes import count_columns, count_rows, pack

UNION_SIZES = (1, 2, 4, 8, 16, 64, 256)

# bytes kept before they are counted, so that a short forward pays for one comparison and no small kernels
FLUSH_BYTES = 1 << 21


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Which rows of a flattened hidden activation are real tokens, and which follow one another.

    Attributes:
        real: boolean of shape (rows,).
        follows: boolean of shape (rows,): this row and the one before it are neighbours in one sequence, both real.
        masked: False when every row is known to be real.
    """

    real: Tensor
    follows: Tensor
    masked: bool

    @staticmethod
    def of(leading: tuple[int, ...], mask: Tensor | None, device: torch.device) -> Tokens:
        """The rows of an activation of shape (*leading, d_hidden).

        Args:
            leading: the shape before the neurons; its last axis is the token axis.
            mask: nonzero where a token is real; None when all are.
            device: where the result is wanted.
        """
        real = torch.ones(leading, dtype=torch.bool, device=device) if mask is None else (mask != 0).to(device)
        grid = real.reshape(-1, real.shape[-1]) if real.dim() else real.reshape(1, 1)
        follows = torch.zeros_like(grid)
        follows[:, 1:] = grid[:, 1:] & grid[:, :-1]
        # elsewhere than on the CPU, asking would make the host wait for the device
        masked = mask is not None and not (device.type == "cpu" and bool(real.all()))
        return Tokens(real=grid.reshape(-1), follows=follows.reshape(-1), masked=masked)

    @staticmethod
    def of_lengths(lengths: Sequence[int], device: torch.device) -> Tokens:
        """The rows of sequences without padding, one after another."""
        real = torch.ones(sum(lengths), dtype=torch.bool, device=device)
        follows = real.clone()
        for start in itertools.accumulate((0, *lengths[:-1])):
            follows[start : start + 1] = False
        return Tokens(real=real, follows=follows, masked=False)


class _Waiting:
    """Rows of booleans kept until they are worth counting; copied when they come, while they are in the cache."""

    def __init__(self, d_hidden: int, most_bytes: int, device: torch.device) -> None:
        self.tokens: list[Tokens] = []
        self._rows = torch.empty(0, dtype=torch.bool, device=device)
        self._shape = (max(1, most_bytes // max(d_hidden, 1)), d_hidden)
        self._used = 0

    def take(self, rows: Tensor, tokens: Tokens) -> bool:
        """Keep the rows; False when there is no room for them."""
        end = self._used + len(rows)
        if end > self._shape[0]:
            return False
        if not self._rows.numel():
            self._rows = self._rows.new_empty(self._shape)
        self._rows[self._used : end] = rows
        self._used = end
        self.tokens.append(tokens)
        return True

    def hand_over(self) -> tuple[Tensor, list[Tokens]]:
        """The rows as lanes, valid until the next :meth:`take`, and their tokens; nothing waits afterwards."""
        rows, tokens = self._rows[: self._used], self.tokens
        self._used, self.tokens = 0, []
        return pack(rows), tokens


class Tally:
    """Counts over everything that was added; reads nothing back to the host until :meth:`totals`."""

    def __init__(self, d_hidden: int, device: torch.device, *, flush_bytes: int = FLUSH_BYTES) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self.d_hidden = d_hidden
        self.calls = 0
        self.fired = zeros(d_hidden)
        self.union_fired, self.union_windows = zeros(len(UNION_SIZES)), zeros(len(UNION_SIZES))
        self.tokens, self.positive, self.positive_tokens, self.pairs = zeros(), zeros(), zeros(), zeros()
        self.overlap = torch.zeros((), dtype=torch.float64, device=device)
        self._waiting = _Waiting(d_hidden, flush_bytes // 2, device)
        self._waiting_positive = _Waiting(d_hidden, flush_bytes // 2, device)

    def add_fired(self, fired: Tensor, tokens: Tokens) -> None:
        """Add one call's firing neurons: booleans of shape (..., d_hidden)."""
        self.calls += 1
        rows = fired.reshape(-1, self.d_hidden)
        if not self._waiting.take(rows, tokens):
            self._flush_fired()
            if not self._waiting.take(rows, tokens):
                self._count(pack(rows), [tokens])

    def add_positive(self, positive: Tensor, tokens: Tokens) -> None:
        """Add one call's positive pre-activations: booleans of the same shape."""
        rows = positive.reshape(-1, self.d_hidden)
        if not self._waiting_positive.take(rows, tokens):
            self._flush_positive()
            if not self._waiting_positive.take(rows, tokens):
                self._count_positive(pack(rows), [tokens])

    def flush(self) -> None:
        """Count what is waiting."""
        self._flush_fired()
        self._flush_positive()

    def _flush_fired(self) -> None:
        if self._waiting.tokens:
            self._count(*self._waiting.hand_over())

    def _flush_positive(self) -> None:
        if self._waiting_positive.tokens:
            self._count_positive(*self._waiting_positive.hand_over())

    def _count_positive(self, lanes: Tensor, tokens: Sequence[Tokens]) -> None:
        real = torch.cat([t.real for t in tokens])
        self.positive += (count_rows(lanes) * real).sum()
        self.positive_tokens += real.sum()

    def _count(self, lanes: Tensor, tokens: Sequence[Tokens]) -> None:
        real, follows = torch.cat([t.real for t in tokens]), torch.cat([t.follows for t in tokens])
        rows = count_rows(lanes)
        both = count_rows(lanes[1:] & lanes[:-1])
        either = rows[1:] + rows[:-1] - both
        # two silent tokens have the same active set: their overlap is 1
        jaccard = torch.where(either > 0, both.double() / either.clamp(min=1), 1.0)
        self.overlap += (jaccard * follows[1:]).sum()
        self.pairs += follows.sum()
        count = real.sum()
        self.tokens += count
        if any(t.masked for t in tokens):
            # a stable sort moves the padding to the end without asking the host how much there is
            order = torch.argsort((~real).to(torch.uint8), stable=True)
            lanes = lanes.index_select(0, order)
            lanes.masked_fill_(torch.arange(len(lanes), device=lanes.device)[:, None] >= count, 0)
        self.fired += count_columns(lanes, self.d_hidden)
        self._count_unions(lanes, count)

    def _count_unions(self, lanes: Tensor, count: Tensor) -> None:
        size = 1
        for k, wanted in enumerate(UNION_SIZES):
            while size < wanted:
                pairs = lanes.shape[0] // 2
                lanes, size = lanes[0 : 2 * pairs : 2] | lanes[1 : 2 * pairs : 2], 2 * size
            complete = count // size
            inside = torch.arange(lanes.shape[0], device=lanes.device) < complete
            self.union_fired[k] += (count_rows(lanes) * inside).sum()
            self.union_windows[k] += complete

    def totals(self) -> Totals:
        """The counts so far, on the host."""
        self.flush()
        fired = self.union_fired.tolist()
        windows = self.union_windows.tolist()
        pairs, positive_tokens = int(self.pairs), int(self.positive_tokens)
        return Totals(
            calls=self.calls,
            tokens=int(self.tokens),
            fired=self.fired.cpu(),
            positive_share=int(self.positive) / (positive_tokens * self.d_hidden) if positive_tokens else None,
            unions=tuple((f / (w * self.d_hidden) if w else None, w) for f, w in zip(fired, windows, strict=True)),
            overlap=float(self.overlap) / pairs if pairs else None,
            pairs=pairs,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """A tally's counts, on the host.

    Attributes:
        fired: int64 of shape (d_hidden,): on how many tokens each neuron fired.
        positive_share: share of pre-activations above 0, or None when none was seen.
        unions: for each of :data:`UNION_SIZES` the mean union density and the number of complete windows.
        overlap: mean Jaccard overlap of neighbouring tokens, or None without neighbours.
    """

    calls: int
    tokens: int
    fired: Tensor
    positive_share: float | None
    unions: tuple[tuple[float | None, int], ...]
    overlap: float | None
    pairs: int
