"""Exported models beside OpenVINO's own: the same sparse weights in both, and what is left without any MLP block.

Biases are set so that every block has the given density on the benchmark's own inputs; dense products take the same
time whatever their weights are, so this compares speed alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyneuron.blocks import MLPBlock, find_blocks
from lazyneuron.core.errors import DataError, ImplUnavailable
from lazyneuron.core.record import Record, made_folder
from lazyneuron.core.timing import interleaved, ratios
from lazyneuron.experiments.bench.correct import needs_kernels, refuse_wrong
from lazyneuron.experiments.bench.openvino_cases import CASES, Case, sparse
from lazyneuron.experiments.bench.parts import commit_now, commits_of, elsewhere
from lazyneuron.experiments.experiment import Experiment, Request, benchmark_record
from lazyneuron.export.openvino.convert import converted, core_with
from lazyneuron.export.openvino.extension import extension
from lazyneuron.export.openvino.folder import feed_of
from lazyneuron.export.openvino.layout import PackedOperator, packed_operator
from lazyneuron.export.openvino.quantise import quantised
from lazyneuron.report import markdown_table, provenance

FORMATS = {"float32": ("keep", "f32"), "bfloat16": ("bf16", "bf16"), "int8": ("int8", "f32")}
_ERRORS = {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.2}  # of the output's norm, before anything is timed
_CALIBRATION = 8
KINDS = ("openvino", "ours", "ceiling")


def run(request: Request) -> Record:
    """Every case in every format; what an interrupted run has measured is kept.

    Raises:
        ImplUnavailable: OpenVINO or the kernels are missing.
        DataError: the folder of converted models cannot be written.
    """
    needs_kernels()
    library = extension()
    kept = [] if request.begun is None else request.begun.data["rows"]
    rows: list[dict[str, Any]] = [row for row in kept if "note" not in row]
    commits = commits_of(request.begun, [_told(row["model"], row["density"], row["format"]) for row in rows])
    left_out: list[dict[str, Any]] = []
    parts = [(case, form) for case in _cases(request) for form in FORMATS]
    with _place(request.folder) as folder:
        for number, (case, form) in enumerate(parts):
            told = _told(case.name, case.density, form)
            if told in commits:
                continue
            request.advance(number / len(parts), f"Converting {told}")
            try:
                ready = compiled(case, form, library, folder)
            except ImplUnavailable as error:
                left_out += [{"model": case.name, "note": str(error)}] if form == next(iter(FORMATS)) else []
                continue
            request.advance((number + 0.5) / len(parts), f"Timing {told}")
            rows += [_row(ready, size, budget_s=1.0 if request.quick else 3.0) for size in case.sizes]
            commits[told] = commit_now()
            request.keep(_record(rows, left_out, commits))
    return _record(rows, left_out, commits)


def convert(folder: Path, *, quick: bool = False, advance: Callable[[str], None] = lambda note: None) -> None:
    """Convert what a folder lacks, and time nothing; a run with this folder then begins with its timings."""
    for case in _cases(Request(quick=quick)):
        for form in FORMATS:
            advance(f"{case.name}, density {case.density}, {form}")
            _converted(case, form, extension(), folder)


def _cases(request: Request) -> Sequence[Case]:
    return [dataclasses.replace(CASES[0], sizes=CASES[0].sizes[:2])] if request.quick else CASES


def _told(model: str, density: float, form: str) -> str:
    """What is measured at a time, in all its sizes."""
    return f"{model}, density {density}, {form}"


def _record(
    rows: Sequence[Mapping[str, Any]], left_out: Sequence[Mapping[str, Any]], commits: Mapping[str, str]
) -> Record:
    import openvino

    threads, version = torch.get_num_threads(), openvino.get_version()
    title = f"Exported models in OpenVINO {version.split('-')[0]}, {threads} threads, milliseconds a batch"
    shown = [*rows, *left_out]
    return benchmark_record(
        "openvino", title=title, threads=threads, openvino=version, commits=dict(commits), rows=shown
    )


@contextlib.contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    """Where converted models are kept; without a wish, until the end of the run."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="lazyneuron-openvino-") as name:
        yield Path(name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ready:
    """A model in one format, compiled in three ways: OpenVINO's own, ours, and without its blocks."""

    case: Case
    model: nn.Module
    form: str
    made: Mapping[str, Any]
    requests: Mapping[str, Any]


def compiled(case: Case, form: str, library: Path, folder: Path) -> Ready:
    """A case in one format, as OpenVINO runs it: read from the folder, or converted and kept there.

    Raises:
        ImplUnavailable: the model or what converts it is not installed.
        DataError: the folder cannot be written.
    """
    made = _converted(case, form, library, folder)
    settings = {"INFERENCE_PRECISION_HINT": FORMATS[form][1], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    settings["PERFORMANCE_HINT"] = "LATENCY"
    core = core_with(library)
    requests = {kind: core.compile_model(one, "CPU", settings).create_infer_request() for kind, one in made.items()}
    return Ready(case=case, model=sparse(case), form=form, made=made, requests=requests)


def _converted(case: Case, form: str, library: Path, folder: Path) -> dict[str, Any]:
    import openvino

    place = folder / f"{case.name} {case.density} {form} {library.parent.name}"  # which names this OpenVINO too
    if not place.is_dir():
        made = _convert(case, form, library)
        try:
            with made_folder(folder), tempfile.TemporaryDirectory(prefix=".converted-", dir=folder) as new:
                for kind, one in made.items():
                    openvino.save_model(one, Path(new, "models", f"{kind}.xml"), compress_to_fp16=False)
                Path(new, "models").replace(place)
        except OSError as error:
            raise DataError(f"Cannot write {place} ({error.strerror}); name a folder that you can write.") from error
    return {kind: core_with(library).read_model(place / f"{kind}.xml") for kind in KINDS}


def _convert(case: Case, form: str, library: Path) -> dict[str, Any]:
    model, weights, example = sparse(case), FORMATS[form][0], case.batch(2, 24)
    blocks = find_blocks(model, example)
    operators: dict[str, list[tuple[MLPBlock, PackedOperator | None]]] = {
        "openvino": [],
        "ours": [(block, packed_operator(block, weights)) for block in blocks],
        "ceiling": [(block, None) for block in blocks],
    }
    made = {kind: converted(model, operators[kind], example, library) for kind in KINDS}
    if form == "int8":
        for kind, one in made.items():
            made[kind] = quantised(one, [feed_of(case.batch(1, 32 + k), one) for k in range(_CALIBRATION)])
    return made


def _row(ready: Ready, size: tuple[int, int], *, budget_s: float) -> dict[str, Any]:
    case, form = ready.case, ready.form
    batch = case.batch(*size)
    calls = {kind: _call(request, feed_of(batch, ready.made[kind])) for kind, request in ready.requests.items()}
    wanted = _output(ready.model, batch)
    errors = {kind: _error(calls[kind](None), wanted) for kind in ("ours", "openvino")}
    refuse_wrong(f"{case.name} in {form}", errors["ours"] <= max(_ERRORS[form], 1.5 * errors["openvino"]))
    times = interleaved(calls, [None], budget_s=budget_s, least=5, warm_up=1, in_a_row=5, uncounted=2)
    speed, limit = ratios(times["openvino"], times["ours"]), ratios(times["openvino"], times["ceiling"])
    return {
        "model": case.name,
        "density": case.density,
        "sequences x tokens": f"{size[0]} x {size[1]}",
        "format": form,
        **{f"{kind}_ms": round(times[kind].median_us / 1e3, 2) for kind in ("openvino", "ours", "ceiling")},
        "speed-up": round(speed.median, 2),
        "quartiles": [round(q, 2) for q in speed.quartiles],
        "limit": round(limit.median, 2),
        "error_ours": errors["ours"],
        "error_openvino": errors["openvino"],
    }


def _call(request: Any, feed: Mapping[str, np.ndarray]) -> Callable[[Any], np.ndarray]:
    def call(_: Any) -> np.ndarray:
        found: np.ndarray = next(iter(request.infer(feed).values()))
        return found

    return call


@torch.no_grad()
def _output(model: nn.Module, batch: Any) -> Tensor:
    y = model(batch) if isinstance(batch, Tensor) else model(**batch)
    found: Tensor = y if isinstance(y, Tensor) else y.last_hidden_state
    return found


def _error(got: np.ndarray, wanted: Tensor) -> float:
    """Of the norm of what is wanted."""
    return float((torch.from_numpy(np.array(got)) - wanted).norm() / wanted.norm())


def _section(record: Record) -> str:
    found = [row for row in record.data["rows"] if "note" not in row]
    shown = [
        {key: value for key, value in row.items() if key != "quartiles"}
        | {key: f"{row[key]:.1e}" for key in ("error_ours", "error_openvino")}
        for row in found
    ]
    left_out = "".join(f"- {row['model']}: {row['note']}\n" for row in record.data["rows"] if "note" in row)
    measured = f"{provenance(record)} {elsewhere(record, record.data.get('commits', ()))}".rstrip()
    return f"**{record.data['title']}**\n\n{markdown_table(shown)}\n\n{left_out}{measured}\n"


EXPERIMENT = Experiment(
    name="openvino",
    title="Exported models beside OpenVINO's own",
    run=run,
    kind="benchmark",
    sections={"docs/export.md": _section},
)
