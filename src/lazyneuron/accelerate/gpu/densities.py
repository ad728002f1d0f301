"""What fires in a block by token count, counted on the device and read without the host waiting for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyneuron.accelerate.gpu.costs import BUCKETS
from lazyneuron.ops.gpu_mlp import operators

READ_EVERY = 64  # calls


class Densities:
    """Counts of each bucket, and the share of neurons that fired for some token of a call.

    Args:
        device: of the block.
        d_hidden: its neurons.
        union: [bucket] shares until something was counted.
    """

    def __init__(self, device: torch.device, d_hidden: int, union: dict[int, float]) -> None:
        self.counts = [operators.new_counts(device) for _ in range(BUCKETS)]
        self.union = dict(union)
        self._d_hidden = d_hidden
        self._seen = [(0, 0)] * BUCKETS  # neurons and calls at the last look
        self._calls = 0
        self._arriving: tuple[Tensor, Any] | None = None  # and the event after which it is there

    def follow(self) -> bool:
        """Count a call; now and then ask for the counts, and say whether some that were asked for have arrived."""
        self._calls += 1
        if self._arriving is not None and (self._arriving[1] is None or self._arriving[1].query()):
            self._take(self._arriving[0])
            self._arriving = None
            return True
        if self._calls >= READ_EVERY and self._arriving is None:
            self._calls = 0
            self._ask()
        return False

    def totals(self) -> tuple[int, int, int]:
        """Pairs fired, tokens and calls; waits for the device."""
        every = torch.stack(self.counts).sum(0).tolist()
        return int(every[1]), int(every[2]), int(every[3])

    def _ask(self) -> None:
        now = torch.stack(self.counts)
        if now.device.type == "cpu":
            self._arriving = (now, None)
            return
        host = torch.empty(now.shape, dtype=now.dtype, pin_memory=True)
        host.copy_(now, non_blocking=True)
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._arriving = (host, event)

    def _take(self, host: Tensor) -> None:
        for k, (neurons, _, _, calls) in enumerate(host.tolist()):
            before = self._seen[k]
            self._seen[k] = (neurons, calls)
            if calls > before[1]:
                self.union[k] = (neurons - before[0]) / ((calls - before[1]) * self._d_hidden)
