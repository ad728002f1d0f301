"""Certified execution against dense, dynamic int8 and naive sparsity, on synthetic Gaussian weights.

``python -m benchmarks.accelerate --json FILE [--quick]``. Every row is gated by a comparison with the reference on the
same block; medians of interleaved rounds with sixteen inputs in turn; raw ratios are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.calibrate import cost_model_for, firing_bias, path_call
from lazyneuron.accelerate.choice import bucket_of, from_cost_model
from lazyneuron.accelerate.dense import dense
from lazyneuron.accelerate.packed import PackedBlock, pack
from lazyneuron.accelerate.sparse_mlp import native, reference
from lazyneuron.blocks import Activation, LinearSite, MLPBlock
from lazyneuron.core.record import Record, write_text

SEED = 0
INPUTS = 16
LIMIT = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table."""

    d: int
    hidden: int
    dtype: torch.dtype
    tokens: int
    density: float
    gated: bool = False
    weights: str = "keep"


def cases(quick: bool) -> list[Case]:
    """The grid, blocks of equal weights next to each other."""
    f32, bf16 = torch.float32, torch.bfloat16
    if quick:
        return [Case(1024, 4096, t, n, q) for t in (f32, bf16) for q in (1.0, 0.05) for n in (1, 16)]
    rows = [
        Case(d, 4 * d, t, n, q)
        for d in (1024, 2048, 768, 384)
        for t in (f32, bf16)
        for q in (1.0, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
        for n in (1, 4, 16, 128, 512)
        if not (n >= 128 and (d == 2048 or q in (0.3, 0.2))) and not (d in (384, 768) and q in (0.3, 0.2))
    ]
    special = [Case(d, 4 * d, f32, n, 0.05, weights="int8") for d in (1024, 2048) for n in (1, 16)]
    special += [Case(2048, 8192, t, n, q, gated=True) for t in (f32, bf16) for q in (1.0, 0.05) for n in (1, 16)]
    return special + rows


def make_block(case: Case) -> MLPBlock:
    """Gaussian weights; the bias of the deciding layer makes the wanted share fire on Gaussian inputs."""
    generator = torch.Generator().manual_seed(SEED)

    def linear(n_in: int, n_out: int, bias: float) -> nn.Linear:
        layer = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
        weight = torch.randn(n_out, n_in, generator=generator) / n_in**0.5
        layer.weight = nn.Parameter(weight.to(case.dtype), requires_grad=False)
        layer.bias = nn.Parameter(torch.full((n_out,), bias, dtype=case.dtype), requires_grad=False)
        return layer

    decide = firing_bias(case.density)
    gate = LinearSite(name="gate", module=linear(case.d, case.hidden, decide)) if case.gated else None
    up = linear(case.d, case.hidden, 0.0 if case.gated else decide)
    down = linear(case.hidden, case.d, 0.0)
    return MLPBlock(
        name="block",
        up=LinearSite(name="up", module=up),
        gate=gate,
        down=LinearSite(name="down", module=down),
        activation=Activation("relu"),
    )


def dynamic_int8(block: MLPBlock) -> Callable[[Tensor], Tensor] | None:
    """torch's dynamic quantisation of the same block; only plain ones."""
    if block.gate is not None:
        return None
    layers = nn.Sequential(block.up.module, nn.ReLU(), block.down.module).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(layers, dtype=torch.qint8)
    return lambda x: quantised(x.float())


def interleaved(calls: dict[str, Callable[[Tensor], Tensor]], inputs: list[Tensor]) -> dict[str, list[float]]:
    """Times in us, round-robin, each call warmed by the other calls only."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for number in range(400):
        for name, call in calls.items():
            start = time.perf_counter()
            call(inputs[number % INPUTS])
            if number >= 2:
                samples[name].append((time.perf_counter() - start) * 1e6)
        if number >= 7 and time.perf_counter() - began > 0.6:
            break
    return samples


def must_move(case: Case, packed: PackedBlock, x: Tensor) -> tuple[int, dict[str, float]]:
    """Bytes that a certified step has to read, and the shares they follow from."""
    needed, fires = reference.computed(packed, x), reference.hidden(packed, x) != 0
    union_c, union_a = float(needed.any(0).float().mean()), float(fires.any(0).float().mean())
    width = 1 if case.weights == "int8" else packed.switch_rows.element_size()
    exact = 0.0 if case.weights == "int8" else union_c
    rows = width * (exact + union_a * (2 if case.gated else 1))
    shares = {"computed": float(needed.float().mean()), "fired": float(fires.float().mean()), "union": union_a}
    return int(case.d * case.hidden * (1 + rows)), shares


def run_case(case: Case, block: MLPBlock, packed: PackedBlock) -> dict[str, object]:
    """One row."""
    generator = torch.Generator().manual_seed(SEED + 1)
    inputs = [torch.randn(case.tokens, case.d, generator=generator).to(case.dtype) for _ in range(INPUTS)]
    row: dict[str, object] = {
        "shape": f"{case.d} x {case.hidden}" + (" gated" if case.gated else ""),
        "dtype": str(case.dtype).removeprefix("torch."),
        "weights": case.weights,
        "tokens": case.tokens,
        "density": case.density,
    }
    paths = {p: path_call(packed, p, native.new_counts()) for p in ("certified-2", "certified-1")}
    wanted = reference.sparse_mlp(packed, inputs[0], compute=torch.float32)
    spread = float(wanted.float().square().mean().sqrt())
    errors = {p: float((f(inputs[0]) - wanted).float().square().mean().sqrt()) / spread for p, f in paths.items()}
    limit = 5e-2 if case.weights == "int8" else LIMIT[case.dtype]
    if max(errors.values()) > limit:
        return row | {"failed": f"error {max(errors.values()):.1e} is above {limit:.0e}, so no time is reported"}
    calls: dict[str, Callable[[Tensor], Tensor]] = {"dense": dense(block), **paths}
    quantised = dynamic_int8(make_block(case))
    if quantised is not None:
        calls["int8"] = quantised
    if case.weights == "keep" and case.tokens <= 16:
        calls["gather"] = path_call(packed, "gather", native.new_counts())
    reads = [packed.sketch.panels, packed.down_rows]
    whole = [t.flatten().view(torch.int64) for t in reads if t.numel() * t.element_size() % 8 == 0]
    calls["read"] = lambda _: torch.stack([t.sum() for t in whole])
    samples = interleaved(calls, inputs)
    median = {name: statistics.median(values) for name, values in samples.items()}
    gbps = sum(t.numel() * 8 for t in whole) / median["read"] / 1e3
    moved, shares = must_move(case, packed, inputs[0])
    choice = _choice(case, block, shares)
    best = median[choice]
    ratios = sorted(a / b for a, b in zip(samples["dense"], samples[choice], strict=True))
    row |= {f"{name}_us": round(value, 1) for name, value in median.items() if name != "read"}
    row |= {
        "ours": choice,
        "vs_dense": round(statistics.median(ratios), 2),
        "vs_dense_quartiles": [round(ratios[len(ratios) // 4], 2), round(ratios[3 * len(ratios) // 4], 2)],
        "vs_int8": round(median["int8"] / best, 2) if "int8" in median else None,
        "ceiling_us": round(moved / gbps / 1e3, 1),
        "over_ceiling": round(best / (moved / gbps / 1e3), 2) if choice != "dense" else None,
        "read_gbps": round(gbps, 1),
        "error": max(errors.values()),
        "added_bytes": packed.added_bytes,
        "raw_ratios": [round(r, 3) for r in ratios],
    }
    return row | {key: round(value, 4) for key, value in shares.items()}


def _choice(case: Case, block: MLPBlock, shares: dict[str, float]) -> str:
    """What the dispatcher picks from the machine's cost model and the measured shares."""
    if case.weights == "int8":
        return "certified-2" if case.tokens < 4 else "certified-1"
    sizes = sum(s.weight.numel() for s in (block.up, block.gate, block.down) if s is not None)
    candidates = from_cost_model(
        cost_model_for(case.dtype), weights=sizes, gated=case.gated, paths=("certified-2", "certified-1")
    )
    seen = dict.fromkeys(candidates.lines, (shares["computed"], shares["fired"]))
    return candidates.choose(seen)[bucket_of(case.tokens)]


@torch.no_grad()
def main() -> None:
    """Run the grid and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    held: tuple[Case, MLPBlock, PackedBlock] | None = None
    grid = cases(options.quick)
    for case in grid:
        same = dataclasses.replace(case, tokens=0)
        if held is None or held[0] != same:
            block = make_block(case)
            held = same, block, pack(block, case.weights)  # type: ignore[arg-type]
        rows.append(run_case(case, held[1], held[2]))
        print({k: v for k, v in rows[-1].items() if k != "raw_ratios"}, flush=True)
        # after every row, so that an interrupted run keeps what it measured and says how much that is
        title = f"Certified execution on synthetic Gaussian weights and inputs ({len(rows)} of {len(grid)} rows)"
        record = Record(kind="benchmark/accelerate", data={"title": title, "rows": rows}, seed=SEED)
        write_text(options.json, record.to_json())


if __name__ == "__main__":
    main()
