"""The sparse model's execution beside the alternatives."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.experiments.demo.cases import ACCELERATED, COMPILED, DENSE, INT8, ORIGINAL, Case, cases, timed
from lazyneuron.experiments.demo.distillation import Network
from lazyneuron.experiments.demo.encoder import Batch, padded
from lazyneuron.experiments.demo.held_out import HeldOut
from lazyneuron.experiments.demo.settings import Settings
from lazyneuron.experiments.demo.stages import Stages
from lazyneuron.experiments.demo.variants import compiled, int8
from lazyneuron.experiments.engines.beside import Effort, beside
from lazyneuron.experiments.engines.engine import ENGINES
from lazyneuron.experiments.engines.ours import exported, own
from lazyneuron.report.engine_rows import reasons


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was found.

    Attributes:
        latency: one entry a case, as the demo's record holds them.
        engines: a row for each engine, ours among them, as ``experiments.engines`` makes them.
        max_abs_difference: largest difference between the sparse model executed densely and accelerated.
        computed_shares: by block, the share of neurons that certified execution has to compute.
        notes: sentences about what is missing or limited.
    """

    latency: tuple[dict[str, Any], ...]
    engines: tuple[dict[str, Any], ...]
    max_abs_difference: float
    computed_shares: Mapping[str, float]
    notes: tuple[str, ...]


def compare(
    original: Network,
    sparse: Network,
    *,
    sample: Sequence[Batch],
    calibration: Sequence[Sequence[int]],
    held_out: HeldOut,
    settings: Settings,
    stages: Stages,
) -> Comparison:
    """Accelerate a copy of the sparse model, check its output, and time all variants.

    Args:
        original: the original.
        sparse: the sparse model.
        sample: inputs on which ``accelerate_`` decides.
        calibration: token ids of the training lines that other engines' quantisation may look at.
        held_out: the lines to check and to time on.
        settings: how much work to do.
        stages: told the progress.
    """
    with stages("accelerate"):
        fast, found = copy.deepcopy((sparse.model, sparse.blocks))
        messages: list[str] = []

        def progress(message: str) -> None:
            messages.append(message)
            stages.advance(len(messages) / (len(sparse.blocks) + 2), message)

        receipt = accelerate_(fast, sample, blocks=found, progress=progress)
        difference = held_out.largest_difference(sparse.model, fast)
    inputs = cases(held_out.ids)
    variants, notes = _variants(original, sparse, inputs, settings=settings, stages=stages)
    variants[ACCELERATED] = fast
    blocks = {ORIGINAL: original.blocks, DENSE: sparse.blocks}
    latency: list[dict[str, Any]] = []
    with stages("time the variants"):
        for number, case in enumerate(inputs):

            def advance(share: float, number: int = number, name: str = case.name) -> None:
                stages.advance((number + share) / len(inputs), name)

            latency.append(
                timed(
                    case,
                    variants,
                    blocks=blocks,
                    seconds=settings.latency_seconds,
                    rounds=settings.latency_rounds,
                    advance=advance,
                )
            )
    engines, missing = _engines(
        original,
        sparse,
        inputs,
        sample=sample,
        calibration=calibration,
        held_out=held_out,
        settings=settings,
        stages=stages,
    )
    return Comparison(
        latency=tuple(latency),
        engines=engines,
        max_abs_difference=difference,
        computed_shares={c.block: _computed(c.details["shares"]) for c in receipt.changes if c.details.get("shares")},
        notes=(*receipt.notes, *notes, *missing),
    )


def _engines(
    original: Network,
    sparse: Network,
    inputs: Sequence[Case],
    *,
    sample: Sequence[Batch],
    calibration: Sequence[Sequence[int]],
    held_out: HeldOut,
    settings: Settings,
    stages: Stages,
) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """What a user would have picked instead, and what of it is not here."""
    if not settings.engines:
        return (), ("Other engines were left out: preparing them takes longer than a quick run.",)
    with stages("other engines"):
        models, notes = own(original.model, sparse.model, sample)
        lines = [padded(calibration[i : i + 20]) for i in range(0, len(calibration), 20)]
        with exported(sparse.model, lines, formats=settings.exports) as (engines, more):
            rows = beside(
                original.model,
                models,
                cases=inputs,
                held_out=held_out.ids,
                calibration=calibration,
                effort=Effort(rounds=settings.latency_rounds, runs=2),
                engines=(*ENGINES, *engines),
                advance=stages.advance,
            )
    return tuple(rows), (*notes, *more, *reasons(rows))


def _computed(shares: Mapping[str, Mapping[str, float]]) -> float:
    """The share of neurons that the path which skips most has to compute."""
    return min(share["computed"] for share in shares.values())


def _variants(
    original: Network, sparse: Network, inputs: Sequence[Case], *, settings: Settings, stages: Stages
) -> tuple[dict[str, nn.Module], tuple[str, ...]]:
    variants: dict[str, nn.Module] = {ORIGINAL: original.model, DENSE: sparse.model}
    note = "The compiled variant was left out: compiling takes longer than a quick run."
    if settings.compile:
        with stages("compile the sparse model"):
            model, note = compiled(sparse.model, [case.batches[0] for case in inputs])
        if model is not None:
            variants[COMPILED] = model
    variants[INT8] = int8(sparse.model)
    return variants, (note,) if note else ()
