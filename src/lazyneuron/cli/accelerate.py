"""``lazyneuron accelerate``: execute a model's blocks sparsely and show what it brings on this machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lazyneuron.cli.options import AllowPickle, Batches, BatchSize, Data, JsonFile, Model, ModelFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from lazyneuron.core.receipt import Receipt

_ROUNDS = 7


def accelerate(
    model: Model,
    *,
    data: Data,
    guarantee: Annotated[str, typer.Option("--guarantee", help="exact, or calibrated.")] = "exact",
    weights: Annotated[str, typer.Option("--weights", help="Of the MLP blocks: keep, int8 or int4.")] = "keep",
    rest: Annotated[str, typer.Option("--rest", help="Of all other linear layers: keep, int8 or int4.")] = "keep",
    group: Annotated[int, typer.Option("--group", help="Weights that share a scale in int4: 32, 64 or 128.")] = 32,
    impl: Annotated[str, typer.Option("--impl", help="auto, native, gather or a kernel level.")] = "auto",
    batches: Batches = 8,
    batch_size: BatchSize = 16,
    json_file: JsonFile = None,
    out: ModelFolder = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Execute the MLP blocks of a model sparsely, with the output unchanged, and time it against dense."""
    from lazyneuron.accelerate import accelerate_
    from lazyneuron.cli.inputs import load_inputs
    from lazyneuron.cli.output import check_writable, write_record
    from lazyneuron.cli.saved import save_folder
    from lazyneuron.cli.screen import print_lines, status
    from lazyneuron.core.record import Record

    check_writable(json_file, folder=out)
    loaded, items = load_inputs(model, data, batches=batches, batch_size=batch_size, allow_pickle=allow_pickle, out=out)
    with status("Accelerating") as tell:
        receipt = accelerate_(
            loaded.model,
            items,
            guarantee=guarantee,  # type: ignore[arg-type]
            weights=weights,  # type: ignore[arg-type]
            rest=rest,  # type: ignore[arg-type]
            group=group,
            impl=impl,
            progress=tell,
        )
        tell("Timing dense against accelerated")
        timing = _against_dense(loaded.model, receipt, items)
    _print(receipt, timing)
    content = {"receipt": receipt.to_data(), "timing": timing, "model": loaded.name, "data": str(data)}
    write_record(json_file, Record(kind="accelerate", data=content, seed=None))
    if out is not None:
        print_lines(f"Saved to {out}; read it as {save_folder(loaded, out)}")


def _against_dense(model: nn.Module, receipt: Receipt, items: list[Any]) -> dict[str, float]:
    """Forward times of both, interleaved, and the largest difference of any output."""
    import copy

    import torch

    from lazyneuron.core.batch import call_model
    from lazyneuron.core.timing import interleaved, ratios
    from lazyneuron.core.undo import restore_

    dense = copy.deepcopy(model)
    restore_(dense, receipt)
    outputs: dict[str, Any] = {}
    largest = 0.0

    def call_of(name: str, runner: nn.Module) -> Callable[[Any], None]:
        return lambda item: outputs.update({name: call_model(runner, item)})

    def compare(*_: float) -> None:
        nonlocal largest
        largest = max(largest, _difference(outputs["dense"], outputs["accelerated"]))
        outputs.clear()

    calls = {"dense": call_of("dense", dense), "accelerated": call_of("accelerated", model)}
    with torch.inference_mode():
        times = interleaved(calls, items, budget_s=0.0, least=_ROUNDS, most=_ROUNDS, warm_up=1, on_round=compare)
    return {
        "dense_ms": times["dense"].median_us / 1e3,
        "accelerated_ms": times["accelerated"].median_us / 1e3,
        "speedup": ratios(times["dense"], times["accelerated"]).median,
        "largest_difference": largest,
    }


def _difference(a: Any, b: Any) -> float:
    """Largest absolute difference of the floating-point tensors in two outputs of the same form; NaN equals NaN."""
    import torch

    if isinstance(a, torch.Tensor):
        alike = (a == b) | (a.isnan() & b.isnan())
        apart = (a - b).abs().nan_to_num(nan=math.inf, posinf=math.inf).masked_fill(alike, 0.0)
        return float(apart.max()) if a.is_floating_point() and a.numel() else 0.0
    if hasattr(a, "to_tuple"):
        a, b = a.to_tuple(), b.to_tuple()
    if isinstance(a, tuple | list):
        return max((_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    return 0.0


def _print(receipt: Receipt, timing: dict[str, float]) -> None:
    from lazyneuron.cli.screen import print_lines, print_notes, print_table

    print_table(None, [_row(change.block, change.action, change.reason, change.details) for change in receipt.changes])
    print_lines(
        f"Forward: dense {timing['dense_ms']:.2f} ms, accelerated {timing['accelerated_ms']:.2f} ms, "
        f"{timing['speedup']:.2f}x (medians of {_ROUNDS}); "
        f"largest output difference {timing['largest_difference']:.1e}"
    )
    print_notes(receipt.notes)


def _row(block: str, action: str, reason: str, details: Any) -> dict[str, Any]:
    from lazyneuron.report.numbers import mebibytes, share

    shares: dict[str, float] = next(iter(details.get("shares", {}).values()), {})
    table = details.get("path_by_tokens", {})
    return {
        "block": block,
        "action": action,
        "fired": share(shares.get("fired")),
        "computed": share(shares.get("computed")),
        "1 token": table.get("<= 1"),
        "64 tokens": table.get("<= 64"),
        "1024 tokens": table.get("<= 1024"),
        "added MiB": mebibytes(details.get("added_bytes")),
        "why": reason if action != "accelerated" else None,
    }
