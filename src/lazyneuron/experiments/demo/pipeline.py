"""The main job, stage by stage: measure, sparsify, distil, accelerate, and time it beside the alternatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from lazyneuron.blocks import find_blocks
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.record import Record
from lazyneuron.experiments.demo.comparison import Comparison, compare
from lazyneuron.experiments.demo.distillation import Network
from lazyneuron.experiments.demo.encoder import Encoder, load_minilm, padded
from lazyneuron.experiments.demo.held_out import Evaluation, HeldOut
from lazyneuron.experiments.demo.settings import Settings
from lazyneuron.experiments.demo.stages import Show, Stages
from lazyneuron.experiments.demo.training import Trained, train
from lazyneuron.experiments.texts.corpus import Texts, read_texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What the demo hands back.

    Attributes:
        record: of kind ``"demo"``.
        model: the sparse model, executed densely.
        receipt: how the original became that model.
    """

    record: Record
    model: nn.Module
    receipt: Receipt


def run_demo(
    settings: Settings,
    *,
    show: Show = lambda stage, share, note: None,
    load: Callable[[], Encoder] = load_minilm,
    texts: Callable[..., Texts] = read_texts,
    data: Path | None = None,
) -> Result:
    """Do the main job.

    Args:
        settings: how much work to do.
        show: told every stage, the share of it that is done, and what was seen.
        load: returns the sentence encoder.
        texts: collects the text.
        data: a file or folder of the user's own text, a kind beside those that the machine has.

    Returns:
        The record, the sparse model and its receipt.

    Raises:
        ImplUnavailable: the demo's packages are not installed.
        DataError: there is too little text.

    Cost: minutes; see :class:`Settings`.
    """
    stages = Stages(show)
    with stages("load the model and the text"):
        encoder = load()
        text = texts(most=settings.kind_lines, data=data, advance=lambda share, kind: stages.advance(0.7 * share, kind))
        lines = text.sample("held_out", settings.held_out_lines, seed=settings.seed + 1)
        held_out = HeldOut(encoder.tokenize(lines, settings.held_out_tokens))
        ids = encoder.tokenize(text.sample("train", settings.train_lines, seed=settings.seed), settings.train_tokens)
    with stages("measure the original"):
        original = Network(model=encoder.model, blocks=find_blocks(encoder.model))
        before = held_out.evaluate(original, label="original", advance=stages.advance)
    trained = train(original, ids, held_out=held_out, settings=settings, stages=stages)
    sample = [padded(ids[i : i + 16]) for i in range(0, min(64, len(ids)), 16)]
    calibration = ids[: settings.calibration_lines]
    comparison = compare(
        original,
        trained.network,
        sample=sample,
        calibration=calibration,
        held_out=held_out,
        settings=settings,
        stages=stages,
    )
    facts = {
        **dataclasses.asdict(settings),
        "model": encoder.name,
        "text": ", ".join(text.train),
        "train_lines_found": sum(map(len, text.train.values())),
        "held_out_lines_found": sum(map(len, text.held_out.values())),
        "steps_made": trained.steps,
        "tokens_trained_on": trained.tokens,
    }
    found = _data(before, trained, comparison, stages=stages, facts=facts, settings=settings)
    receipt = trained.network.receipt
    assert receipt is not None
    record = Record(kind="demo", data=found, seed=settings.seed)
    return Result(record=record, model=trained.network.model, receipt=receipt)


def _data(
    before: Evaluation,
    trained: Trained,
    comparison: Comparison,
    *,
    stages: Stages,
    facts: dict[str, Any],
    settings: Settings,
) -> dict[str, Any]:
    after = trained.evaluations[-1]
    blocks = [
        {
            "name": old.name,
            "density_before": old.density,
            "would_be_relu": old.density_if_relu,
            "density_after": new.density,
            "computed_share": comparison.computed_shares.get(old.name),
        }
        for old, new in zip(before.sparsity.blocks, after.sparsity.blocks, strict=True)
    ]
    return {
        "blocks": blocks,
        "density": after.sparsity.density,
        "quality": dataclasses.asdict(after.quality),
        "frontier": [evaluation.to_point() for evaluation in trained.evaluations],
        "latency": list(comparison.latency),
        "engines": list(comparison.engines),
        "max_abs_difference": comparison.max_abs_difference,
        "timing_s": dict(stages.seconds),
        "settings": facts,
        "notes": [*_remarks(settings, trained), *comparison.notes],
    }


def _remarks(settings: Settings, trained: Trained) -> list[str]:
    notes = []
    if settings.quick:
        notes.append("This was a quick run: it trains a sixth as long as the full one, so the quality is lower.")
    if trained.steps < settings.steps:
        notes.append(
            f"Training ended after {trained.steps} of {settings.steps} steps because {settings.train_seconds:g} s were "
            "over; a faster machine gets further."
        )
    return notes
