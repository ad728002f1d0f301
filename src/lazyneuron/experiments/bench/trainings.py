"""Two whole trainings, shortened, with packed activations and without: the same losses, minutes beside each other."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lazyneuron.blocks import find_blocks
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.correct import needs_kernels, refuse_wrong
from lazyneuron.experiments.demo.distillation import Network, closed_form, end_to_end, sample_blocks, spread
from lazyneuron.experiments.demo.encoder import load_minilm
from lazyneuron.experiments.demo.settings import Settings
from lazyneuron.experiments.experiment import Experiment, Request, benchmark_record
from lazyneuron.experiments.reproduce.tiny_lm.experiment import QUICK, Plan
from lazyneuron.experiments.reproduce.tiny_lm.sources import read_sources
from lazyneuron.experiments.reproduce.tiny_lm.text import keep_text, make_text
from lazyneuron.experiments.reproduce.tiny_lm.training import PRESSURE, Job, train
from lazyneuron.experiments.texts.corpus import read_texts
from lazyneuron.report import markdown_table, provenance

_CHARACTERS = 1_500_000  # of text; what is learned from it is not looked at
_ORDER = (False, True, True, False)  # each side comes first once
_CLOSE = 0.01  # relative, in the mean loss: packed gradients are rounded otherwise, and that grows over the steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Attributes:
        losses: of each step.
        seconds: of each step.
        density: mean of the blocks over all steps.
    """

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    density: float


def _distillation(quick: bool) -> tuple[int, Callable[[bool], Run]]:
    """The demo's distillation of all-MiniLM-L6-v2: its whole number of steps, and how to make a few."""
    settings = dataclasses.replace(Settings.quick_run(), train_seconds=1e6)
    whole, settings = Settings().steps, dataclasses.replace(settings, steps=4 if quick else 40)
    encoder = load_minilm()
    lines = read_texts(most=settings.kind_lines, data=None, advance=lambda share, kind: None)
    ids = encoder.tokenize(lines.sample("train", settings.train_lines, seed=0), settings.train_tokens)
    original = Network(model=encoder.model, blocks=find_blocks(encoder.model))
    samples = sample_blocks(original, ids[: 100 if quick else settings.sample_lines])
    density = spread(original.blocks, settings.start_density)
    start = closed_form(original, samples, density=density, advance=lambda share: None, activation=settings.activation)

    def run(packs: bool) -> Run:
        model, blocks, receipt = copy.deepcopy((start.model, start.blocks, start.receipt))
        student = Network(model=model, blocks=blocks, receipt=receipt)
        seen: list[tuple[float, float, float]] = []

        def on_step(step: Any) -> None:
            seen.append((time.perf_counter(), step.fidelity, step.density))

        torch.manual_seed(0)
        used = dataclasses.replace(settings, pack=packs)
        end_to_end(student, original.model, ids, settings=used, on_step=on_step)
        times = [moment for moment, *_ in seen]
        return Run(
            losses=tuple(loss for _, loss, _ in seen),
            seconds=tuple(b - a for a, b in itertools.pairwise(times)),
            density=statistics.fmean(density for *_, density in seen),
        )

    return whole, run


def _language_model(quick: bool) -> tuple[int, Callable[[bool], Run]]:
    """tiny-lm under pressure, from its first step: its whole number of steps, and how to make a few."""
    plan, steps = (QUICK, 4) if quick else (Plan(), 14)
    text = make_text(read_sources(limit=_CHARACTERS), vocabulary=plan.size.vocabulary)

    def run(packs: bool) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            keep_text(text, Path(folder) / "text")
            # the rates and the density that is asked for are those of the whole training's first steps
            schedule = dataclasses.replace(plan.schedule, every=plan.schedule.steps)
            job = Job(
                name="ReLU, pressure",
                gate="relu",
                size=plan.size,
                schedule=dataclasses.replace(schedule, steps=steps),
                pressure=PRESSURE,
                seed=0,
                text=Path(folder) / "text",
                folder=Path(folder) / "run",
                pack=packs,
            )
            _, rows = train(job, lambda share: None)
        return Run(
            losses=tuple(row["loss"] for row in rows),
            seconds=tuple(row["wall_s"] for row in rows[1:]),
            density=statistics.fmean(row["density"] for row in rows),
        )

    return plan.schedule.steps, run


def _row(name: str, whole: int, run: Callable[[bool], Run]) -> dict[str, Any]:
    runs = [(packs, run(packs)) for packs in _ORDER]
    dense, packed = ([r for packs, r in runs if packs == side] for side in (False, True))
    between = _difference(dense[0], dense[1])
    difference = max(_difference(a, b) for a in dense for b in packed)
    means = [statistics.fmean(loss for r in found for loss in r.losses) for found in (dense, packed)]
    refuse_wrong(name, abs(means[1] - means[0]) <= _CLOSE * means[0])
    step = {side: statistics.median(s for r in found for s in r.seconds) for side, found in enumerate((dense, packed))}
    return {
        "training": name,
        "steps_made": len(dense[0].losses),
        "steps_of_a_whole_run": whole,
        "density": round(dense[0].density, 3),
        "dense_ms_a_step": round(step[0] * 1e3, 1),
        "packed_ms_a_step": round(step[1] * 1e3, 1),
        "dense_minutes": round(step[0] * whole / 60, 2),
        "packed_minutes": round(step[1] * whole / 60, 2),
        "mean_loss_dense": round(means[0], 5),
        "mean_loss_packed": round(means[1], 5),
        "largest_difference": difference,
        "largest_difference_of_dense_runs": between,
        "losses_dense": list(dense[0].losses),
        "losses_packed": list(packed[0].losses),
        "seconds": {side: [list(r.seconds) for r in found] for side, found in (("dense", dense), ("packed", packed))},
    }


def _difference(a: Run, b: Run) -> float:
    """The largest relative difference of the losses of two runs."""
    return max(abs(x - y) / abs(y) for x, y in zip(a.losses, b.losses, strict=True))


def run(request: Request) -> Record:
    """Both trainings, each twice with packed activations and twice without, from the same weights on the same batches.

    Raises:
        ImplUnavailable: the native kernels are not built, or a package is missing.
    """
    needs_kernels()
    rows = []
    makers = {"distillation of MiniLM (demo)": _distillation, "tiny-lm": _language_model}
    for number, (name, make) in enumerate(makers.items()):
        request.advance(number / len(makers), name)
        rows.append(_row(name, *make(request.quick)))
    title = "Whole trainings with packed activations"
    return benchmark_record("trainings", title=title, threads=torch.get_num_threads(), rows=rows)


def _section(record: Record) -> str:
    table = [
        {
            "training": row["training"],
            "density": row["density"],
            "ms a step": row["dense_ms_a_step"],
            "packed": row["packed_ms_a_step"],
            "minutes of all steps": f"{row['dense_minutes']} ({row['steps_of_a_whole_run']})",
            "packed minutes": row["packed_minutes"],
            "mean loss": row["mean_loss_dense"],
            "packed loss": row["mean_loss_packed"],
            "largest difference of losses": f"{row['largest_difference']:.1e}",
            "of two runs without": f"{row['largest_difference_of_dense_runs']:.1e}",
        }
        for row in record.data["rows"]
    ]
    return f"{markdown_table(table)}\n\n{provenance(record)}\n"


EXPERIMENT = Experiment(
    name="trainings",
    title="Whole trainings with packed activations and without",
    run=run,
    kind="benchmark",
    sections={"docs/train.md#trainings": _section},
)
