"""An output layer for very many classes: it trains on those that a hash finds, and on a weighted sample of the rest."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.errors import ConfigError, DataError


class HashedOutput(nn.Module):
    """Softmax over many classes whose training step computes only some of them.

    The step's classes are the labels, the ``hard`` classes that most often share a SimHash bucket with an input of the
    batch, and a uniform sample of the others. The sampled ones count for all that were not drawn, ``(classes - hard) /
    sampled`` each, so that the partition function is estimated without bias. One set of classes serves the whole batch.

    Args:
        features: length of an input.
        classes: number of classes.
        hard: most classes taken from buckets.
        sampled: classes drawn from the others.
        tables, bits: of the hash.
        rebuild_every: training steps after which the classes are hashed anew.
        seed: of weights, hashes and samples.

    Attributes:
        weight: (classes, features), with sparse gradients: use ``torch.optim.SparseAdam`` or ``SGD``.
        bias: (classes, 1), likewise.

    Raises:
        ConfigError: sizes that make no sense.

    Cost: FLOPs of a training step and input: ``2 features (labels + hard + sampled)``, and hashing ``2 features tables
        bits``; the classes are hashed once in ``rebuild_every`` steps.

    Source: SLIDE (Chen, Medini, Farwell, Gobriel, Tai, Shrivastava, 2020) for choosing classes by hashes; the weighted
    uniform rest is ours.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        hard: int = 2048,
        sampled: int = 2048,
        tables: int = 4,
        bits: int = 10,
        rebuild_every: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(features, classes, tables, bits, rebuild_every) < 1 or hard < 0 or sampled < 1 or bits > 20:
            raise ConfigError("Sizes of a hashed output layer are at least 1 (hard: 0), and there are at most 20 bits.")
        g = torch.Generator().manual_seed(seed)
        self.classes, self.hard, self.sampled, self.rebuild_every = classes, hard, sampled, rebuild_every
        self.weight = nn.Parameter(torch.randn(classes, features, generator=g) / math.sqrt(features))
        self.bias = nn.Parameter(torch.zeros(classes, 1))
        self.register_buffer("planes", torch.randn(features, tables, bits, generator=g), persistent=True)
        self.planes: Tensor
        self._generator = g
        self._steps = 0
        self._buckets: tuple[Tensor, Tensor] | None = None

    def _codes(self, rows: Tensor) -> Tensor:
        """(rows, tables): the bucket of each row in each table, all tables in one numbering."""
        tables, bits = self.planes.shape[1:]
        signs = torch.einsum("nd,dtb->ntb", rows, self.planes.to(rows.dtype)) > 0
        place = 1 << torch.arange(bits, device=rows.device)
        return (signs * place).sum(-1) + (torch.arange(tables, device=rows.device) << bits)

    @torch.no_grad()
    def rebuild(self) -> None:
        """Hash the classes as their weights are now."""
        codes = self._codes(self.weight)
        order = codes.flatten().argsort(stable=True)
        sizes = torch.bincount(codes.flatten(), minlength=self.planes.shape[1] << self.planes.shape[2])
        self._buckets = (order // codes.shape[1], torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]))

    @torch.no_grad()
    def candidates(self, x: Tensor) -> Tensor:
        """The classes that most often share a bucket with these inputs, at most ``hard``, best first: (found,)."""
        if self._buckets is None:
            self.rebuild()
        assert self._buckets is not None
        members, starts = self._buckets
        bucket, votes = torch.unique(self._codes(x), return_counts=True)  # type: ignore[no-untyped-call]
        sizes = starts[bucket + 1] - starts[bucket]
        within = torch.arange(int(sizes.sum()), device=x.device) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        found = members[starts[bucket].repeat_interleave(sizes) + within]
        score = torch.zeros(self.classes, device=x.device).index_add_(
            0, found, votes.repeat_interleave(sizes).to(torch.float32)
        )
        best = score.topk(min(self.hard, self.classes))
        return best.indices[best.values > 0]

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Estimated mean cross-entropy, from a part of the classes; for training.

        Args:
            x: (rows, features).
            labels: (rows,) int64.

        Raises:
            DataError: a label that is no class.
        """
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise DataError(f"Labels are 0 to {self.classes - 1}, got {int(labels.min())} to {int(labels.max())}.")
        if self._steps % self.rebuild_every == 0:
            self.rebuild()
        self._steps += 1
        sure = torch.unique(torch.cat([labels, self.candidates(x.detach())]))  # type: ignore[no-untyped-call]
        taken = torch.zeros(self.classes, dtype=torch.bool, device=x.device).index_fill_(0, sure, True)
        rest = self.classes - len(sure)
        drawn = torch.randint(self.classes, (min(4 * self.sampled, 2 * self.classes),), generator=self._generator).to(
            x.device
        )
        drawn = drawn[~taken[drawn]][: self.sampled]
        chosen = torch.cat([sure, drawn])
        logits = F.linear(x, F.embedding(chosen, self.weight, sparse=True))
        logits = logits + F.embedding(chosen, self.bias, sparse=True)[:, 0]
        correction = torch.zeros(len(chosen), device=x.device)
        correction[len(sure) :] = math.log(rest / max(len(drawn), 1)) if rest else 0.0
        place = torch.searchsorted(sure, labels)
        picked = logits.gather(1, place[:, None])[:, 0]
        return ((logits + correction).logsumexp(1) - picked).mean()

    def forward(self, x: Tensor) -> Tensor:
        """All logits, (..., classes): dense evaluation."""
        return F.linear(x, self.weight, self.bias[:, 0])

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The best class among those that share a bucket with the input, row by row: sparse evaluation.

        Args:
            x: (rows, features).

        Returns:
            (rows,) int64; -1 where no class shares a bucket.
        """
        found = []
        for row in x:
            near = self.candidates(row[None])
            scores = self.weight[near] @ row + self.bias[near, 0]
            found.append(int(near[scores.argmax()]) if len(near) else -1)
        return torch.tensor(found, dtype=torch.int64)

    @torch.no_grad()
    def recall(self, x: Tensor, *, top: int = 1) -> float:
        """Share of the ``top`` largest logits of each input whose classes are among its candidates."""
        best = self(x).topk(top, dim=1).indices
        hits = [torch.isin(b, self.candidates(row[None])).double().mean() for row, b in zip(x, best, strict=True)]
        return float(torch.stack(hits).mean())
