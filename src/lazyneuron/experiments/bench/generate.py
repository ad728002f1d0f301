"""Decoding with quantised weights: ours beside other engines at the same bits, and beside the bytes that a token needs.

Weights are random, with a set share of neurons that fire: the speed of dense engines does not depend on the values, and
what sparsity costs in quality is no question of this benchmark. All engines of a case take turns in one run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.correct import needs_kernels
from lazyneuron.experiments.bench.generation.cases import Case, chosen, full, quick
from lazyneuron.experiments.bench.generation.front import FIGURE, engines_figure, front, reached
from lazyneuron.experiments.bench.generation.measuring import FULL, QUICK, Row, measure
from lazyneuron.experiments.bench.generation.page import summary, whole_page
from lazyneuron.experiments.bench.generation.peers.peer import check_interpreter
from lazyneuron.experiments.bench.generation.reading import Reading
from lazyneuron.experiments.bench.parts import commit_now, commits_of
from lazyneuron.experiments.experiment import Experiment, Request, benchmark_record

TITLE = "Decoding with quantised weights, synthetic models with a set share of neurons that fire"


def run(request: Request) -> Record:
    """Every case, or those named; cases of an interrupted run are kept, unless they are named."""
    check_interpreter(request.peers_python)
    every = quick() if request.quick else full()
    wanted = chosen(every, request.only)
    needs_kernels()
    found: dict[str, list[Row]] = {} if request.begun is None else dict(request.begun.data["cases"])
    commits = commits_of(request.begun, found)
    left = [case for case in wanted if request.only or case.name not in found]
    with tempfile.TemporaryDirectory(prefix="lazyneuron-peers-") as folder:
        reading = Reading(torch.get_num_threads())
        for number, case in enumerate(left):
            request.advance(number / len(left), case.name)
            found[case.name] = _measured(case, request, Path(folder), reading)
            commits[case.name] = commit_now()
            request.keep(_record(found, commits, every, request))
    return _record(found, commits, every, request)


def _measured(case: Case, request: Request, folder: Path, reading: Reading) -> list[Row]:
    """A case that fails is a row that says why."""
    effort = QUICK if request.quick else FULL
    try:
        return measure(case, effort=effort, python=request.peers_python, folder=folder, reading=reading)
    except Exception as error:  # memory may be too small, or an engine wrong
        reason = f"failed: {type(error).__name__}: {error}"
        return [{"case": case.name, "shape": case.shape.name, "note": reason}]


def _record(found: dict[str, list[Row]], commits: dict[str, str], every: tuple[Case, ...], request: Request) -> Record:
    places = {case.name: number for number, case in enumerate(every)}
    ordered = {name: found[name] for name in sorted(found, key=lambda name: places.get(name, len(places)))}
    at = {name: commits[name] for name in ordered}
    return benchmark_record(
        "generate", title=TITLE, threads=torch.get_num_threads(), quick=request.quick, commits=at, cases=ordered
    )


EXPERIMENT = Experiment(
    name="generate",
    title="Generating text with quantised weights, beside other engines",
    run=run,
    kind="benchmark",
    sections={
        "README.md": summary,
        "docs/index.md#decoding": front,
        "docs/benchmarks.md#reached": reached,
        "docs/generate.md": whole_page,
    },
    figures={FIGURE: engines_figure},
)
