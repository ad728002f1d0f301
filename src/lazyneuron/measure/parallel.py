"""What several processes pay for a block on paper: bytes, FLOPs and communication of decoding and of training."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lazyneuron.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """What one process computes with.

    Attributes:
        flops_per_s: of the weights' dtype, a multiply-add being two.
        bytes_per_s: of its memory.
        link_bytes_per_s: that it sends to another process, in one direction.
        latency_us: of one collective, however small.
    """

    flops_per_s: float
    bytes_per_s: float
    link_bytes_per_s: float
    latency_us: float

    def __post_init__(self) -> None:
        rates = (self.flops_per_s, self.bytes_per_s, self.link_bytes_per_s)
        if not all(math.isfinite(rate) and rate > 0 for rate in rates) or not self.latency_us >= 0:
            raise ConfigError(f"A device has rates > 0 and a latency >= 0, got {rates} and {self.latency_us}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelStep:
    """What the process with the most work pays for one step.

    Attributes:
        processes: how many share the work.
        flops: that it computes.
        weight_bytes: that it reads from its memory.
        sent_bytes: that it sends.
        collectives: how often all of them wait for each other.
        imbalance: its work over the mean of all; 1 where all have the same.
        kept_bytes: activations that it keeps for the backward; 0 for decoding.
    """

    processes: int
    flops: float
    weight_bytes: float
    sent_bytes: float
    collectives: int
    imbalance: float = 1.0
    kept_bytes: float = 0.0

    def time_us(self, device: Device) -> float:
        """Microseconds where memory and arithmetic overlap, and communication overlaps nothing."""
        work_s = max(self.flops / device.flops_per_s, self.weight_bytes / device.bytes_per_s)
        return 1e6 * (work_s + self.sent_bytes / device.link_bytes_per_s) + self.collectives * device.latency_us


def fullest_share(neurons: int, rate: float, processes: int) -> float:
    """Mean over inputs of the most firing neurons that one of several equal shares has, over the mean of a share.

    Args:
        neurons: of all shares; each has ``neurons // processes``, or one more.
        rate: probability that a neuron fires, independently of the others.
        processes: number of shares.

    Returns:
        At least 1; ``E max = sum_k 1 - F(k)^processes`` with F of the binomial law of one share.

    Raises:
        ConfigError: a count below 1 or a rate that is no fraction.

    Source: ours; neurons that fire together make it larger, up to ``processes``.
    """
    if processes < 1 or neurons < processes or not 0 <= rate <= 1:
        raise ConfigError(f"There are at least as many neurons as shares, got {neurons} and {processes}, rate {rate}.")
    share = -(-neurons // processes)
    if rate in (0.0, 1.0) or processes == 1:
        return 1.0
    k = np.arange(share + 1)
    logs = np.array([math.lgamma(share + 1) - math.lgamma(i + 1) - math.lgamma(share - i + 1) for i in k])
    below = np.cumsum(np.exp(logs + k * math.log(rate) + (share - k) * math.log1p(-rate)))
    most = float(np.sum(1 - np.minimum(below[:-1], 1.0) ** processes))
    return max(1.0, most / (share * rate))


def decode_step(
    d_in: int,
    d_hidden: int,
    *,
    d_out: int,
    itemsize: float,
    gated: bool,
    density: float,
    processes: int,
    union_density: float | None = None,
    tokens: int = 1,
) -> ParallelStep:
    """One step of a block whose neurons are spread over processes, with one sum of the outputs.

    The layer that decides is read and computed whole, of the other layers what fires: at density 1 this is dense tensor
    parallelism.

    Args:
        d_in, d_hidden, d_out: widths of the block.
        itemsize: bytes of a weight, and of a number that is sent; 0.5 for 4 bits, which send two bytes as 8 bits do.
        gated: whether the block has a gate.
        density: share of neurons that fire on one token.
        processes: how many.
        union_density: share that fires on at least one of the tokens; None stands for ``density``.
        tokens: processed together.

    Returns:
        The figures of the fullest process. A ring sends ``2 (r - 1) / r`` times the outputs.

    Raises:
        ConfigError: as :func:`fullest_share`.
    """
    union = density if union_density is None else union_density
    imbalance = fullest_share(d_hidden, union, processes)
    first, others = d_in, d_out + (d_in if gated else 0)
    neurons = d_hidden / processes
    return ParallelStep(
        processes=processes,
        flops=2 * tokens * neurons * (first + imbalance * density * others),
        weight_bytes=itemsize * neurons * (first + imbalance * union * others),
        sent_bytes=2 * (processes - 1) / processes * tokens * d_out * max(itemsize, 2),
        collectives=int(processes > 1),
        imbalance=imbalance,
    )


def training_step(
    d_in: int,
    d_hidden: int,
    *,
    d_out: int,
    itemsize: int,
    gated: bool,
    density: float,
    processes: int,
    tokens: int,
    packed: bool = True,
) -> ParallelStep:
    """One training step of a block under FSDP2: each process has all neurons and its share of the tokens.

    Forward: the layer that decides whole, the others where something fires; backward: two products a layer, where
    something fires. Weights are gathered for forward and backward and gradients scattered: three times
    ``(r - 1) / r`` of the block's bytes are sent.

    Args:
        d_in, d_hidden, d_out, itemsize, gated, density, processes: as in :func:`decode_step`.
        tokens: of one process.
        packed: whether what is kept for the backward is bits and values, as
            :func:`lazyneuron.train.pack_activations_` does; else pre-activation and hidden activation whole, of a gated
            block the other factor too.

    Returns:
        The figures of any process.

    Raises:
        ConfigError: there is no process.
    """
    if processes < 1:
        raise ConfigError(f"There is at least one process, got {processes}.")
    layers = d_in + d_out + (d_in if gated else 0)
    forward = d_in + density * (layers - d_in)
    numbers = 3 if gated else 2
    kept = d_hidden * (1 / 8 + (numbers - 1) * density * itemsize) if packed else d_hidden * numbers * itemsize
    moved = itemsize * d_hidden * layers
    return ParallelStep(
        processes=processes,
        flops=2 * tokens * d_hidden * (forward + 2 * density * layers),
        weight_bytes=3 * moved,
        sent_bytes=3 * (processes - 1) / processes * moved,
        collectives=3 * int(processes > 1),
        kept_bytes=tokens * kept,
    )
