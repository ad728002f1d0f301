"""``lazyneuron export``: a model for another engine, its sparse blocks as operators of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lazyneuron.cli.options import AllowPickle, Batches, BatchSize, JsonFile, Model

if TYPE_CHECKING:
    from lazyneuron.export import Exported


def export(
    model: Model,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for model.xml, model.bin and lazyneuron.so.")],
    to: Annotated[str, typer.Option("--to", help="The engine: openvino.")] = "openvino",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Inputs as for measure, to time each block both ways, and to calibrate int8."),
    ] = None,
    weights: Annotated[str, typer.Option("--weights", help="Of the MLP blocks: keep, bf16 or int8.")] = "keep",
    rest: Annotated[str, typer.Option("--rest", help="Of everything else: keep, or int8 by the engine.")] = "keep",
    every: Annotated[bool, typer.Option("--every", help="Every block as an operator, whichever is faster.")] = False,
    batches: Batches = 8,
    batch_size: BatchSize = 16,
    json_file: JsonFile = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Write a model for another engine, with its sparse MLP blocks as operators of lazyneuron's."""
    from lazyneuron.cli.inputs import load_inputs
    from lazyneuron.cli.output import check_writable, write_record
    from lazyneuron.cli.screen import status
    from lazyneuron.core.record import Record
    from lazyneuron.export import export as write

    check_writable(json_file)
    loaded, items = load_inputs(model, data, batches=batches, batch_size=batch_size, allow_pickle=allow_pickle)
    with status("Exporting") as tell:
        exported = write(
            loaded.model,
            out,
            to=to,
            batches=items or None,
            weights=weights,  # type: ignore[arg-type]
            rest=rest,  # type: ignore[arg-type]
            every=every,
            progress=tell,
        )
    _print(exported)
    write_record(json_file, Record(kind="export", data=exported.to_data() | {"model": loaded.name}, seed=None))


def _print(exported: Exported) -> None:
    from lazyneuron.cli.screen import print_lines, print_table

    print_table(None, [_row(change.block, change.action, change.reason, change.details) for change in exported.changes])
    print_lines(
        f"Wrote {exported.folder}: model.xml, model.bin, lazyneuron.so, for OpenVINO {exported.config['openvino']}.",
        f"Largest difference from torch: {exported.output_error['largest']:.1e} of the output's RMS.",
    )


def _row(block: str, action: str, reason: str, details: Any) -> dict[str, Any]:
    from lazyneuron.report.numbers import mebibytes

    times = {name: details.get(f"{name}_us") for name in ("ours", "openvino")}
    return {
        "block": block,
        "action": action,
        "MiB": mebibytes(details.get("bytes")),
        **{f"{name} ms": None if time is None else f"{time / 1e3:.3f}" for name, time in times.items()},
        "why": reason,
    }
