"""Variants of one training beside each other: runs with several seeds, one row and one curve for each variant."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from lazyneuron.experiments.experiment import Finding, Request, band
from lazyneuron.experiments.jobs import run_cases, run_jobs
from lazyneuron.experiments.training.task import Task
from lazyneuron.experiments.training.trainer import Evaluation, TrainingConfig, Variant, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        build: makes the task; a function of a module or a partial of one, so that another process can call it.
        config, variant, seed: of the training.
        start: a file with the weights to go on from.
        keep: a file to write the trained weights to.
        device: where to train.
    """

    build: Callable[[], Task]
    config: TrainingConfig
    variant: Variant
    seed: int
    start: Path | None = None
    keep: Path | None = None
    device: str = "cpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """What came out of a :class:`Job`.

    Attributes:
        evaluations: of the model on the way.
        data, epoch_steps, size: of the task that was learned.
    """

    evaluations: tuple[Evaluation, ...]
    data: str
    epoch_steps: int
    size: Any


def run_job(job: Job, advance: Callable[[float], None]) -> Trained:
    """Train, and say what was measured on the way."""
    task = job.build()
    task.device = torch.device(job.device)
    start: nn.Module | None = None
    if job.start is not None:
        start = task.new_model()
        load_model(start, job.start)
    model, found = train(task, job.config, variant=job.variant, seed=job.seed, start=start, advance=advance)
    if job.keep is not None:
        save_model(model, str(job.keep))
    return Trained(evaluations=found, data=task.name, epoch_steps=task.epoch_steps, size=task.size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation:
    """What to compare.

    Attributes:
        build: makes the task, as in :class:`Job`.
        variants: the first is what the others are compared with.
        config: how each is trained.
        dense: how a ReLU model is trained first, from which every variant then goes on; None starts from scratch.
        published: what the paper says of a variant, by its name.
        processes: trainings at a time; None takes one for each core.
    """

    build: Callable[[], Task]
    variants: Sequence[Variant]
    config: TrainingConfig
    dense: TrainingConfig | None = None
    published: Mapping[str, str] = dataclasses.field(default_factory=dict)
    processes: int | None = None

    def run(self, request: Request) -> Finding:
        """Train every variant with every seed."""
        first = 0 if self.dense is None else self.dense.steps
        before = first / (first + self.config.steps * len(self.variants))
        with tempfile.TemporaryDirectory() as folder:
            starts = self._train_dense(Path(folder), request, before)

            def job(variant: Variant, seed: int) -> Job:
                start = starts.get(seed)
                return Job(
                    build=self.build,
                    config=self.config,
                    variant=variant,
                    seed=seed,
                    start=start,
                    device=request.device,
                )

            found = run_cases(
                run_job,
                self.variants,
                job=job,
                seeds=request.seeds,
                advance=lambda share, note: request.advance(before + share * (1 - before), note),
                processes=self._processes(request),
            )
        return self._record(found, request)

    def _train_dense(self, folder: Path, request: Request, share: float) -> dict[int, Path]:
        if self.dense is None:
            return {}
        files = {seed: folder / f"{seed}.safetensors" for seed in range(request.seeds)}
        plain = Variant(name="dense")
        jobs = [
            Job(build=self.build, config=self.dense, variant=plain, seed=seed, keep=file, device=request.device)
            for seed, file in files.items()
        ]
        run_jobs(
            run_job,
            jobs,
            advance=lambda done, note: request.advance(done * share, f"dense model, {note}"),
            processes=self._processes(request),
        )
        return files

    def _processes(self, request: Request) -> int | None:
        """One after another on an accelerator, which a single training fills."""
        return self.processes if request.device == "cpu" else 1

    def _record(self, found: Sequence[Sequence[Trained]], request: Request) -> Finding:
        names, task = [variant.name for variant in self.variants], found[0][0]
        runs = {name: [run.evaluations for run in each] for name, each in zip(names, found, strict=True)}
        rows = [_row(name, runs[name], runs[names[0]]) | {"paper": self.published.get(name)} for name in names]
        return Finding(
            rows=rows,
            curves=[
                band(
                    name,
                    x=[at.step / task.epoch_steps for at in each[0]],
                    runs=[[at.density for at in run] for run in each],
                )
                for name, each in runs.items()
            ],
            sentence=_sentence(rows, request.seeds),
            axes=("epoch", "density on held-out data"),
            facts={
                **dataclasses.asdict(self.config),
                "dense": None if self.dense is None else dataclasses.asdict(self.dense),
                "variants": {v.name: _variant_data(v) for v in self.variants},
                "data": task.data,
                "size": dataclasses.asdict(task.size),
                "device": request.device,
                "seeds": request.seeds,
                "runs": {name: [[dataclasses.asdict(at) for at in run] for run in each] for name, each in runs.items()},
            },
        )


def _variant_data(variant: Variant) -> dict[str, Any]:
    return {
        "recipe": None if variant.recipe is None else variant.recipe.to_data(),
        "pressure": None if variant.pressure is None else dataclasses.asdict(variant.pressure),
    }


def _row(name: str, found: Sequence[Sequence[Evaluation]], vanilla: Sequence[Sequence[Evaluation]]) -> dict[str, Any]:
    last, before = [points[-1] for points in found], [points[-1] for points in vanilla]
    cuts = [1 - a.density / b.density for a, b in zip(last, before, strict=True)]
    training = [[statistics.mean(p.train_density for p in points) for points in side] for side in (found, vanilla)]
    return {
        "variant": name,
        "density": statistics.mean(p.density for p in last),
        "spread": max(p.density for p in last) - min(p.density for p in last),
        "accuracy": statistics.mean(p.accuracy for p in last),
        "loss": statistics.mean(p.loss for p in last),
        "relative cut": statistics.mean(cuts),
        "relative cut in training": 1 - statistics.mean(training[0]) / statistics.mean(training[1]),
    }


def _sentence(rows: Sequence[Mapping[str, Any]], seeds: int) -> str:
    first = rows[0]
    cuts = "; ".join(
        f"{row['variant']} by {row['relative cut']:.2f} (accuracy {100 * (row['accuracy'] - first['accuracy']):+.1f} "
        f"points, loss {100 * (row['loss'] / first['loss'] - 1):+.1f} %)"
        for row in rows[1:]
    )
    return (
        f"Share of neurons that fire, {first['density']:.3f} in {first['variant']} (accuracy {first['accuracy']:.3f}, "
        f"loss {first['loss']:.3f}), is cut relatively: {cuts}. Means of {seeds} seeds."
    )
