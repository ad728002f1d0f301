"""How long the variants of one model take, interleaved in one process."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.timing import Times, interleaved


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one variant took.

    Attributes:
        variant: its name.
        median_ms: median of the runs.
        low_ms: their first quartile.
        high_ms: their third quartile.
        n: how many runs.
    """

    variant: str
    median_ms: float
    low_ms: float
    high_ms: float
    n: int


def latencies(
    variants: Mapping[str, nn.Module],
    batches: Sequence[Any],
    *,
    seconds: float,
    least: int = 5,
    in_a_row: int = 4,
    on_round: Callable[[float], None] | None = None,
) -> tuple[Timing, ...]:
    """Time models on batches of one shape, a few runs of each in turn: what disturbs the machine disturbs all of them.

    The first of the runs in a row is not counted: it finds the caches full of another model's weights, which no one who
    uses a single model sees.

    Args:
        variants: the models by name.
        batches: the batches; each round takes the next, the same one for all models.
        seconds: how long to go on, after each model has run on each batch once to warm up.
        least: rounds to make even when that takes longer.
        in_a_row: runs of a model one after another, at least 2; the first of them is not counted.
        on_round: called after each round with the share of the work done.

    Returns:
        One entry for each variant, in the order given; no counted run is left out.

    Raises:
        ConfigError: ``least`` is not positive, ``in_a_row`` is below 2, or there are no batches.
    """
    if least < 1 or in_a_row < 2 or not batches:
        raise ConfigError(
            f"Timing takes at least 1 round of 2 runs and 1 batch, got {least}, {in_a_row} and {len(batches)}."
        )
    calls = {name: functools.partial(call_model, model) for name, model in variants.items()}

    def watch(done: int, elapsed_s: float) -> None:
        if on_round is not None:
            on_round(min(1.0, elapsed_s / seconds if seconds else 1.0, done / least))

    with torch.inference_mode():
        for model in variants.values():
            for batch in batches:
                call_model(model, batch)
        times = interleaved(
            calls, batches, budget_s=seconds, least=least, in_a_row=in_a_row - 1, uncounted=1, on_round=watch
        )
    return tuple(_timing(name, taken) for name, taken in times.items())


def _timing(variant: str, taken: Times) -> Timing:
    low, high = (quartile / 1e3 for quartile in taken.quartiles_us)
    return Timing(variant=variant, median_ms=taken.median_us / 1e3, low_ms=low, high_ms=high, n=len(taken.samples_us))


def amdahl(share: float, *, remaining: float = 0.0) -> float:
    """The speed-up of a whole whose part ``share`` takes only a fraction ``remaining`` of its time.

    Args:
        share: part of the time, in [0, 1].
        remaining: what is left of it, >= 0.

    Returns:
        ``1 / (1 - share + share * remaining)``.

    Raises:
        ConfigError: the share is not in [0, 1], the remainder negative, or nothing would be left.
    """
    left = 1 - share + share * remaining
    if not (0 <= share <= 1 and remaining >= 0 and left > 0):
        raise ConfigError(f"A share is in [0, 1] and a remainder >= 0, not both extreme, got {share} and {remaining}.")
    return 1 / left
