"""Exported models beside OpenVINO's own: the same sparse weights in both, and what is left without any MLP block.

Biases are set so that every block has the given density on the benchmark's own inputs; dense products take the same
time whatever their weights are, so this compares speed alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyneuron.accelerate.sample import block_inputs
from lazyneuron.blocks import MLPBlock, find_blocks, replace_activation_
from lazyneuron.blocks.activation import Activation
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.core.record import Record
from lazyneuron.core.timing import interleaved, ratios
from lazyneuron.core.undo import transaction
from lazyneuron.experiments.bench.correct import needs_kernels, refuse_wrong
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.export.openvino.convert import converted, core_with
from lazyneuron.export.openvino.extension import extension
from lazyneuron.export.openvino.folder import feed_of
from lazyneuron.export.openvino.layout import PackedOperator, packed_operator
from lazyneuron.export.openvino.quantise import quantised
from lazyneuron.report import markdown_table, provenance

FORMATS = {"float32": ("keep", "f32"), "bfloat16": ("bf16", "bf16"), "int8": ("int8", "f32")}
_ERRORS = {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.2}  # of the output's norm, before anything is timed
_CALIBRATION = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One model with its inputs.

    Attributes:
        name: what it is shaped as.
        build: the model, in evaluation mode.
        batch: (sequences, tokens of each) to an input.
        sizes: sequences and tokens of each that are timed.
        density: share of neurons that fire, in every block.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[int, int], Any]
    sizes: tuple[tuple[int, int], ...]
    density: float


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2 with ReLU."""
    from lazyneuron.experiments.demo.encoder import load_minilm

    model = load_minilm().model
    with transaction(model, "benchmark") as change:
        for block in find_blocks(model):
            replace_activation_(change, block, Activation("relu"))
    return model


def t5_base_encoder() -> nn.Module:
    """An encoder in the shape of T5-base, with random weights."""
    from transformers import T5Config, T5EncoderModel

    sizes: Any = {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_heads": 12, "vocab_size": 30000}
    model: nn.Module = T5EncoderModel(T5Config(**sizes))  # type: ignore[no-untyped-call]
    return model.eval()


def detr_encoder() -> nn.Module:
    """An encoder in the shape of DETR's, with random weights."""
    layer = nn.TransformerEncoderLayer(256, 8, 2048, activation="relu", batch_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).eval()


def _ids(sequences: int, tokens: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(1000, 30000, (sequences, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _pixels(sequences: int, tokens: int) -> Tensor:
    return torch.randn(sequences, tokens, 256, generator=torch.Generator().manual_seed(SEED))


_TEXT = ((1, 60), (32, 48))
CASES = (
    Case(name="all-MiniLM-L6-v2", build=minilm, batch=_ids, sizes=((1, 10), *_TEXT), density=0.05),
    Case(name="all-MiniLM-L6-v2", build=minilm, batch=_ids, sizes=_TEXT, density=0.10),
    Case(name="T5-base encoder", build=t5_base_encoder, batch=_ids, sizes=((1, 60), (8, 48)), density=0.05),
    Case(name="DETR encoder", build=detr_encoder, batch=_pixels, sizes=((1, 850),), density=0.05),
)


def run(request: Request) -> Record:
    """Every case in every format.

    Raises:
        ImplUnavailable: OpenVINO or the kernels are missing.
    """
    needs_kernels()
    library = extension()
    import openvino

    cases = [dataclasses.replace(CASES[0], sizes=CASES[0].sizes[:2])] if request.quick else CASES
    ready, left_out = [], []
    for number, case in enumerate(cases):
        torch.manual_seed(SEED)
        try:
            model = case.build()
        except ImplUnavailable as error:
            left_out.append({"model": case.name, "note": str(error)})
            continue
        with_density(model, [case.batch(8, 48)], case.density)
        for at, form in enumerate(FORMATS):
            share = (number * len(FORMATS) + at) / (len(cases) * len(FORMATS))
            request.advance(share / 2, f"Converting {case.name}, density {case.density}, {form}")
            ready.append(_converted(case, model, form, library))
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(ready):
        for size in one.case.sizes:
            request.advance(0.5 + number / len(ready) / 2, f"{one.case.name}, {size[0]} x {size[1]}, {one.form}")
            rows.append(_row(one, size, budget_s=1.0 if request.quick else 3.0))
    threads, version = torch.get_num_threads(), openvino.get_version()
    title = f"Exported models in OpenVINO {version.split('-')[0]}, {threads} threads, milliseconds a batch"
    return benchmark_record("openvino", title=title, threads=threads, openvino=version, rows=rows + left_out)


@torch.no_grad()
def with_density(model: nn.Module, batches: Sequence[Any], density: float) -> None:
    """Set the biases of the first layers so that this share of neurons fires on the batches, block after block."""
    for block in find_blocks(model, batches[0]):
        layer: Any = block.up.module
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(block.d_hidden))
        z = block.pre_activation(block_inputs(model, [block], batches)[block.name])
        layer.bias.sub_(torch.quantile(z, 1 - density, dim=0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ready:
    """A model in one format, compiled in three ways: OpenVINO's own, ours, and without its blocks."""

    case: Case
    model: nn.Module
    form: str
    made: Mapping[str, Any]
    requests: Mapping[str, Any]


def _converted(case: Case, model: nn.Module, form: str, library: Path) -> Ready:
    weights, hint = FORMATS[form]
    example = case.batch(2, 24)
    blocks = find_blocks(model, example)
    operators: dict[str, list[tuple[MLPBlock, PackedOperator | None]]] = {
        "openvino": [],
        "ours": [(block, packed_operator(block, weights)) for block in blocks],
        "ceiling": [(block, None) for block in blocks],
    }
    made = {kind: converted(model, packed, example, library) for kind, packed in operators.items()}
    if form == "int8":
        for kind, one in made.items():
            made[kind] = quantised(one, [feed_of(case.batch(1, 32 + k), one) for k in range(_CALIBRATION)])
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    settings["PERFORMANCE_HINT"] = "LATENCY"
    core = core_with(library)
    requests = {kind: core.compile_model(one, "CPU", settings).create_infer_request() for kind, one in made.items()}
    return Ready(case=case, model=model, form=form, made=made, requests=requests)


def _row(ready: Ready, size: tuple[int, int], *, budget_s: float) -> dict[str, Any]:
    case, form = ready.case, ready.form
    batch = case.batch(*size)
    calls = {kind: _call(request, feed_of(batch, ready.made[kind])) for kind, request in ready.requests.items()}
    wanted = _output(ready.model, batch)
    errors = {kind: _error(calls[kind](None), wanted) for kind in ("ours", "openvino")}
    refuse_wrong(f"{case.name} in {form}", errors["ours"] <= max(_ERRORS[form], 1.5 * errors["openvino"]))
    times = interleaved(calls, [None], budget_s=budget_s, least=5, warm_up=1, in_a_row=3, uncounted=1)
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
    return f"**{record.data['title']}**\n\n{markdown_table(shown)}\n\n{left_out}{provenance(record)}\n"


EXPERIMENT = Experiment(
    name="openvino",
    title="Exported models beside OpenVINO's own",
    run=run,
    kind="benchmark",
    sections={"docs/export.md": _section},
)
