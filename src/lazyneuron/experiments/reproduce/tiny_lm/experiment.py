"""``lazyneuron reproduce tiny-lm``: train both models, measure them in every format, time them last."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import platformdirs

from lazyneuron.experiments.experiment import Finding, Request, published
from lazyneuron.experiments.jobs import run_jobs
from lazyneuron.experiments.reproduce.tiny_lm import table
from lazyneuron.experiments.reproduce.tiny_lm.evaluation import EvaluationJob, evaluate
from lazyneuron.experiments.reproduce.tiny_lm.model import Size
from lazyneuron.experiments.reproduce.tiny_lm.page import front, section
from lazyneuron.experiments.reproduce.tiny_lm.sources import read_sources
from lazyneuron.experiments.reproduce.tiny_lm.speed import tokens_per_second
from lazyneuron.experiments.reproduce.tiny_lm.text import keep_text, make_text, read_text
from lazyneuron.experiments.reproduce.tiny_lm.training import PRESSURE, Job, Schedule, train_and_save

NAME = "tiny-lm"
_DIFFERS = (
    "Nothing is published for this model; it is ours, small enough to be trained within 40 minutes on two cores, and "
    "far from converged: it sees three million tokens, each once, where a model of this size would take hundreds."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How large everything is.

    Attributes:
        size, schedule: of models and training.
        characters: of text to train on.
        windows, prompts, tokens: of the evaluation, as in :class:`EvaluationJob`.
        thresholds: densities to cut the SiLU model to.
        rounds: of timing.
    """

    size: Size = dataclasses.field(default_factory=Size)
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    characters: int = 24_000_000
    windows: int = 64
    prompts: int = 16
    tokens: int = 128
    thresholds: tuple[float, ...] = (0.5, 0.4, 0.3, 0.2, 0.1)
    rounds: int = 7


QUICK = Plan(
    size=Size(vocabulary=512, width=64, layers=2, heads=2, hidden=256, context=128),
    schedule=Schedule(steps=60, batch=4, warmup=6, every=30),
    characters=1_500_000,
    windows=16,
    prompts=2,
    tokens=8,
    thresholds=(0.5, 0.3),
    rounds=2,
)


PACKED = "ReLU, pressure, packed"


def jobs_of(plan: Plan, text: Path, folder: Path, *, seeds: int, plain: bool = False, pack: bool = False) -> list[Job]:
    """A ReLU model under pressure and a SiLU model on the loss alone, of the same size and on the same batches.

    Args:
        plan: how large they are.
        text: folder with the token ids.
        folder: for a folder of each training.
        seeds: runs of each.
        plain: a ReLU model on the loss alone too.
        pack: the ReLU model under pressure once more, with packed activations: the same losses, another time.
    """
    variants = [("ReLU, pressure", "relu", PRESSURE, "relu"), ("SiLU", "silu", None, "silu")]
    if plain:
        variants.append(("ReLU, loss alone", "relu", None, "relu-plain"))
    if pack:
        variants.append((PACKED, "relu", PRESSURE, "relu-packed"))
    return [
        Job(
            name=name,
            gate=gate,  # type: ignore[arg-type]
            size=plan.size,
            schedule=plan.schedule,
            pressure=pressure,
            seed=seed,
            text=text,
            folder=folder / f"seed-{seed}" / own,
            pack=name == PACKED,
        )
        for seed in range(seeds)
        for name, gate, pressure, own in variants
    ]


def run(request: Request, plan: Plan | None = None) -> Finding:
    """Train, measure and time; whatever the folder holds already is read instead.

    Raises:
        DataError: there is too little text, or the folder cannot be written.
    """
    plan = plan or (QUICK if request.quick else Plan())
    folder = _folder(request, plan)
    text = read_text(folder / "text")
    if text is None:
        request.advance(0.0, "read sources, train the tokenizer")
        sources = read_sources(limit=plan.characters, library=request.data)
        text = make_text(sources, vocabulary=plan.size.vocabulary)
        keep_text(text, folder / "text")
    jobs = jobs_of(plan, folder / "text", folder, seeds=request.seeds, plain=request.with_plain, pack=request.pack)
    histories = run_jobs(train_and_save, jobs, advance=_part(request, 0.0, 0.8, "train"))
    found = run_jobs(evaluate, [_evaluation(job, plan) for job in jobs], advance=_part(request, 0.8, 0.97, "measure"))
    request.advance(0.97, "time decoding")
    speeds = tokens_per_second(
        {job.name: job.folder / "model" for job in jobs if job.seed == 0}, text, rounds=plan.rounds
    )
    request.advance(1.0, "done")
    rows = table.rows(jobs, found, speeds)
    return Finding(
        rows=rows,
        curves=table.curves(jobs, found),
        sentence=table.sentence(jobs, found),
        axes=("density", "perplexity on held-out files"),
        logarithmic="xy",
        facts={
            "size": dataclasses.asdict(plan.size),
            "schedule": dataclasses.asdict(plan.schedule),
            "pressure": dataclasses.asdict(PRESSURE),
            "seeds": request.seeds,
            "runs": {
                "text": text.facts,
                "speed": speeds,
                "trained": [
                    {"name": job.name, "seed": job.seed, "training": table.summary(history, job), "found": one}
                    for job, history, one in zip(jobs, histories, found, strict=True)
                ],
            },
        },
    )


def _evaluation(job: Job, plan: Plan) -> EvaluationJob:
    return EvaluationJob(
        model=job.folder / "model",
        text=job.text,
        folder=job.folder / f"found-{plan.windows}-{plan.prompts}x{plan.tokens}",
        width=plan.size.width,
        length=plan.size.context,
        windows=plan.windows,
        prompts=plan.prompts,
        tokens=plan.tokens,
        thresholds=plan.thresholds if job.gate == "silu" else (),
    )


def _folder(request: Request, plan: Plan) -> Path:
    """Where models and everything that was measured are kept: another one for other settings."""
    root = platformdirs.user_cache_path("lazyneuron") / NAME if request.folder is None else request.folder
    trained = [dataclasses.asdict(part) for part in (plan.size, plan.schedule, PRESSURE)]
    settings = json.dumps([*trained, plan.characters, None if request.data is None else str(request.data)])
    return root / f"trained-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def _part(request: Request, first: float, last: float, what: str) -> Callable[[float, str], None]:
    return lambda share, note: request.advance(first + share * (last - first), f"{what}: {note}")


EXPERIMENT = published(
    name=NAME,
    title="A language model of Python code, trained here: a sparse ReLU gate against SiLU",
    source="ours; the text is Python's standard library and the packages that are installed",
    differs=_DIFFERS,
    run=run,
    sections={"docs/index.md#cost": front, "docs/tiny-lm.md": section},
    seeds=1,
)
