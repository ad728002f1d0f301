"""How fast this process reads memory: the ceiling of everything that moves more bytes than it computes."""

from __future__ import annotations

import torch

from lazyneuron.core.timing import repeated

BUFFER_BYTES = 256 * 2**20  # more than the caches of common processors hold


def read_bandwidth_gbps(*, rounds: int = 5) -> float:
    """Bandwidth of summing a large fp32 buffer with torch's present number of threads.

    Args:
        rounds: timed passes; one more is made first and not counted.

    Returns:
        The median, in 10^9 bytes a second.

    Cost: 256 MiB of memory for the time of the call, read ``rounds + 1`` times; about a tenth of a second.
    """
    buffer = torch.ones(BUFFER_BYTES // 4)
    return BUFFER_BYTES / repeated(buffer.sum, rounds=rounds, warm_up=1).median_us / 1e3
