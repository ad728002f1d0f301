"""Decode on a GPU: blocks in the sizes of Llama models beside torch.compile's dense ones, and whole models.

Times are of CUDA graphs, eight calls in a row on weights that lie in memory and in no cache; medians of interleaved
rounds. The limit is the bytes that the sparse path has to read at the bandwidth that a copy reaches here.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.accelerate import accelerate_, status
from lazyneuron.accelerate.gpu.timing import calls_in_a_row, in_a_row
from lazyneuron.accelerate.machine.benchmark import firing_bias
from lazyneuron.core.errors import ImplUnavailable, NoBlocksError
from lazyneuron.core.record import Record
from lazyneuron.core.timing import compared, ratios, repeated
from lazyneuron.experiments.bench.correct import refuse_wrong
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.ops.gpu_mlp.available import interprets
from lazyneuron.report import markdown_table, provenance

SHAPES = {"TinyLlama": (2048, 5632), "Llama-3.1-8B": (4096, 14336), "Llama-3.1-70B": (8192, 28672)}
TOKENS = (1, 2, 4, 8, 16, 32, 64)
DENSITIES = (0.05, 0.1, 0.3, 1.0)
_UNCACHED_BYTES = 512 << 20
_QUICK = ({"small": (64, 96)}, (1, 2), (0.1,))


class Block(nn.Module):
    """A gated block whose gate's bias decides what share of the neurons fires on normal inputs."""

    def __init__(self, d_in: int, d_hidden: int, density: float, device: torch.device) -> None:
        super().__init__()
        with device:
            self.gate, self.up = nn.Linear(d_in, d_hidden), nn.Linear(d_in, d_hidden, bias=False)
            self.down, self.act = nn.Linear(d_hidden, d_in, bias=False), nn.ReLU()
        for layer in (self.gate, self.up, self.down):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.constant_(self.gate.bias, firing_bias(density))
        self.to(torch.bfloat16).eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, d_in) to the same."""
        y: Tensor = self.down(self.act(self.gate(x)) * self.up(x))
        return y


def _dense(x: Tensor, gate: Tensor, bias: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.relu(F.linear(x, gate, bias)) * F.linear(x, up), down)


def device_here() -> torch.device:
    """The GPU to measure on; the CPU where kernels are interpreted, for tests.

    Raises:
        ImplUnavailable: there is none.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if interprets():
        return torch.device("cpu")
    raise ImplUnavailable("The benchmark gpu needs a CUDA device, and torch sees none here; run it where there is one.")


def run(request: Request) -> Record:
    """Every shape, density and token count; then tokens a second of a whole model.

    Raises:
        ImplUnavailable: there is no GPU.
    """
    device = device_here()
    shapes, counts, densities = _QUICK if request.quick else (SHAPES, TOKENS, DENSITIES)
    gbps = copy_gbps(device)
    cases = list(itertools.product(shapes.items(), densities))
    rows: list[dict[str, Any]] = []
    for number, ((name, (d_in, d_hidden)), density) in enumerate(cases):
        request.advance(number / (len(cases) + 1), f"{name}, density {density:g}")
        case = Case(name=name, d_in=d_in, d_hidden=d_hidden, density=density, device=device)
        rows += case.rows(counts, gbps=gbps, budget_s=0.1 if request.quick else 2.0)
    request.advance(len(cases) / (len(cases) + 1), "whole models")
    whole = [] if request.quick else [_end_to_end(density, device) for density in (0.05, 0.3)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "Triton's interpreter on a CPU"
    return benchmark_record(
        "gpu", title="Decode on a GPU, bfloat16", rows=rows, whole=whole, device=name, copy_gbps=round(gbps, 1)
    )


def copy_gbps(device: torch.device) -> float:
    """Bytes read and written a second by a copy on the device, in GB/s."""
    size = _UNCACHED_BYTES if device.type == "cuda" else 8 << 20
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    run_in_a_row = in_a_row(lambda: target.copy_(source), "captured")
    return 2 * size * calls_in_a_row() / repeated(run_in_a_row, rounds=7, warm_up=1).median_us / 1e3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Blocks of one shape and density.

    Attributes:
        name: of the shape.
        d_in, d_hidden: widths.
        density: share of the neurons that fire for a token.
        device: where they run.
    """

    name: str
    d_in: int
    d_hidden: int
    density: float
    device: torch.device

    @torch.no_grad()
    def rows(self, counts: Sequence[int], *, gbps: float, budget_s: float) -> list[dict[str, Any]]:
        """A row for each token count; outputs are compared before anything is timed."""
        torch.manual_seed(SEED)
        size = 3 * self.d_in * self.d_hidden * 2
        copies = min(8, max(1, _UNCACHED_BYTES // size)) if self.device.type == "cuda" else 1
        blocks = [Block(self.d_in, self.d_hidden, self.density, self.device) for _ in range(copies)]
        weights = [(b.gate.weight, b.gate.bias, b.up.weight, b.down.weight) for b in blocks]
        dense = torch.compile(_dense) if self.device.type == "cuda" else _dense
        inputs = {n: torch.randn(n, self.d_in, device=self.device).to(torch.bfloat16) for n in counts}
        wanted = {n: dense(x, *weights[0]) for n, x in inputs.items()}
        for block in blocks:
            self._accelerate(block, inputs[max(counts)])
        found = []
        for n, x in inputs.items():
            error = float((blocks[0](x) - wanted[n]).float().norm() / wanted[n].float().norm())
            refuse_wrong("The accelerated block", error < 0.02)
            calls = {
                "dense": _in_turn([functools.partial(dense, x, *w) for w in weights]),
                "ours": _in_turn([functools.partial(b, x) for b in blocks]),
            }
            runs = {name: in_a_row(call, "captured") for name, call in calls.items()}
            union = float((F.linear(x, *weights[0][:2]) > 0).any(0).float().mean())
            found.append(self._row(n, runs, union, gbps=gbps, budget_s=budget_s) | {"error": error})
        return found

    def _accelerate(self, block: Block, x: Tensor) -> None:
        """By what users call; a block that dense suits best at every token count stays as it is."""
        impl = "auto" if self.device.type == "cuda" else "triton"
        try:
            accelerate_(block, [x], impl=impl)
        except NoBlocksError:
            return

    def _row(
        self, tokens: int, runs: dict[str, Callable[[], object]], union: float, *, gbps: float, budget_s: float
    ) -> dict[str, Any]:
        calls = {name: lambda _, run=run: run() for name, run in runs.items()}
        times = compared(calls, [None], budget_s=budget_s, seed=SEED)
        ratio = ratios(times["dense"], times["ours"])
        row_bytes = 2 * self.d_in * self.d_hidden
        limit_us = row_bytes * (1 + 2 * union) / gbps / 1e3
        ours_us = times["ours"].median_us / calls_in_a_row()
        return {
            "shape": f"{self.name}, {self.d_in} x {self.d_hidden}",
            "tokens": tokens,
            "density": self.density,
            "union_density": round(union, 4),
            "dense_us": round(times["dense"].median_us / calls_in_a_row(), 2),
            "ours_us": round(ours_us, 2),
            "ratio": round(ratio.median, 3),
            "ratio_quartiles": [round(q, 3) for q in ratio.quartiles],
            "limit_us": round(limit_us, 2),
            "over_limit": round(ours_us / limit_us, 2),
            "dense_limit_us": round(3 * row_bytes / gbps / 1e3, 2),
        }


def _in_turn(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    turns = itertools.cycle(calls)

    def call() -> object:
        return next(turns)()

    return call


@torch.no_grad()
def _end_to_end(density: float, device: torch.device) -> dict[str, Any]:
    """Tokens a second of a TinyLlama-sized model, compiled by transformers around a static cache, without and with."""
    from lazyneuron.experiments.bench.generation.cases import Case as Model
    from lazyneuron.experiments.bench.generation.models import build, some_tokens
    from lazyneuron.experiments.bench.generation.shapes import TINYLLAMA

    case = Model(shape=TINYLLAMA, weights="keep", rest="keep", density=density)
    model, prompt = build(case).to(device), some_tokens(TINYLLAMA, 1, 16).to(device)
    dense_s = _token_s(model, prompt)
    torch.compiler.reset()
    accelerate_(model, [{"input_ids": some_tokens(TINYLLAMA, 1, 64).to(device)}])
    ours_s = _token_s(model, prompt)
    sparse = sum(block.sparse_calls > 0 for block in status(model).blocks)
    torch.compiler.reset()
    return {
        "model": TINYLLAMA.name, "density": density, "blocks_sparse": sparse,
        "dense_tokens_per_s": round(1 / dense_s, 1), "ours_tokens_per_s": round(1 / ours_s, 1),
        "ratio": round(dense_s / ours_s, 3),
    }  # fmt: skip


def _token_s(model: Any, prompt: Tensor, *, short: int = 16, long: int = 144, runs: int = 5) -> float:
    """Seconds a token: the median difference between long and short generations, which leaves the prompt out."""

    def seconds(count: int) -> float:
        def generate() -> object:
            return model.generate(
                prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False, cache_implementation="static",
                max_length=None,
            )  # fmt: skip

        return repeated(generate, rounds=runs, warm_up=2).median_us / 1e6

    return (seconds(long) - seconds(short)) / (long - short)


def _section(record: Record) -> str:
    table = [
        {
            "block": row["shape"],
            "tokens": row["tokens"],
            "density": row["density"],
            "of some token": row["union_density"],
            "compiled dense us": row["dense_us"],
            "ours us": row["ours_us"],
            "ratio": row["ratio"],
            "bytes alone us": row["limit_us"],
            "over bytes": row["over_limit"],
        }
        for row in record.data["rows"]
    ]
    whole = [
        {
            "model": row["model"],
            "density": row["density"],
            "compiled dense tokens/s": row["dense_tokens_per_s"],
            "ours tokens/s": row["ours_tokens_per_s"],
            "ratio": row["ratio"],
        }
        for row in record.data["whole"]
    ]
    tables = [markdown_table(rows) for rows in (table, whole) if rows]
    slowest = min((row["ratio"] for row in record.data["rows"]), default=1.0)
    middle = statistics.median([row["over_limit"] for row in record.data["rows"]] or [1.0])
    said = (
        f"The slowest row has {slowest:.2f} times dense's speed; the median takes {middle:.2f} times the bytes' time."
    )
    return "\n\n".join([f"On {record.data['device']}. {said}", *tables, provenance(record)]) + "\n"


EXPERIMENT = Experiment(
    name="gpu",
    title="Decode on a GPU beside torch.compile's dense blocks",
    run=run,
    kind="benchmark",
    sections={"docs/gpu.md": _section},
)
