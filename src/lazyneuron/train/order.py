"""Which samples come next, in an order that can be stopped and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import CheckpointError, ConfigError


class BatchOrder:
    """Endless batches of indices: every epoch is a permutation that the seed and its number decide.

    Its state is two numbers, so that a training resumes in the middle of an epoch without replaying what came before,
    also on another number of processes: the batches are those of all processes together.

    Args:
        samples: how many there are.
        batch_size: indices a batch; the last batch of an epoch may be smaller.
        seed: of the permutations.
        rank: of this process, in data-parallel training.
        processes: how many there are; each takes its share of every batch.

    Raises:
        ConfigError: a number out of range, or a batch that does not split evenly over the processes.

    Example:
        >>> order = BatchOrder(5, batch_size=2, seed=0)
        >>> sorted(torch.cat([next(order) for _ in range(3)]).tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, samples: int, *, batch_size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        if min(samples, batch_size, processes) < 1 or not 0 <= rank < processes:
            raise ConfigError(
                f"Samples, batch size and processes are at least 1 and the rank below the processes, got {samples}, "
                f"{batch_size}, {processes} and rank {rank}."
            )
        if processes > 1 and (batch_size % processes or samples % batch_size):
            raise ConfigError(
                f"Over {processes} processes every batch has to split evenly, got {samples} samples in batches of "
                f"{batch_size}; choose a batch size that divides the samples and that the processes divide."
            )
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.rank, self.processes = rank, processes
        self.epoch = self.batch = 0

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        """The next batch's indices, int64."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.samples, generator=generator)
        taken = order[self.batch * self.batch_size : (self.batch + 1) * self.batch_size]
        self.batch += 1
        if self.batch == self.batches:
            self.epoch, self.batch = self.epoch + 1, 0
        return taken if self.processes == 1 else taken.chunk(self.processes)[self.rank]

    def state_dict(self) -> dict[str, int]:
        """Where it stands, and the numbers that it was made with."""
        made = {"samples": self.samples, "batch_size": self.batch_size, "seed": self.seed}
        return {**made, "epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            CheckpointError: that was another order.
        """
        here = self.state_dict()
        other = [k for k in ("samples", "batch_size", "seed") if state[k] != here[k]]
        if other:
            raise CheckpointError(
                f"The checkpoint's order has {other[0]} = {state[other[0]]}, this one {here[other[0]]}; resume with "
                "the same data, batch size and seed."
            )
        self.epoch, self.batch = state["epoch"], state["batch"]


class OrderedLoader:
    """Batches of data in a :class:`BatchOrder`; each iteration goes on to the end of the epoch.

    Its state is the order's: a trainer that keeps its loader's state, as Lightning does, resumes within an epoch.

    Args:
        order: which samples come next.
        fetch: from indices to the batch.

    Example:
        >>> data = torch.arange(5)
        >>> loader = OrderedLoader(BatchOrder(5, batch_size=2, seed=0), data.__getitem__)
        >>> len(loader), sorted(torch.cat(list(loader)).tolist())
        (3, [0, 1, 2, 3, 4])
    """

    def __init__(self, order: BatchOrder, fetch: Callable[[Tensor], Any]) -> None:
        self.order, self.fetch = order, fetch

    def __len__(self) -> int:
        return self.order.batches

    def __iter__(self) -> Iterator[Any]:
        epoch = self.order.epoch
        while self.order.epoch == epoch:
            yield self.fetch(next(self.order))

    def state_dict(self) -> dict[str, int]:
        """Where the order stands."""
        return self.order.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            CheckpointError: that was another order.
        """
        self.order.load_state_dict(state)
