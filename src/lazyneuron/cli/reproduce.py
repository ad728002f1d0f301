"""``lazyneuron reproduce``: a published table or figure, beside what is measured here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lazyneuron.cli.options import FigureFile, JsonFile, Quick

if TYPE_CHECKING:
    from lazyneuron.core.record import Record
    from lazyneuron.experiments.experiment import Experiment

_DAYS = "peng-regime-"  # experiments whose trainings take days


def reproduce(
    name: Annotated[str | None, typer.Argument(help="Which experiment; without it, all are listed.")] = None,
    *,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with the published experiment's own data.")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Runs of each variant; mostly 3.", min=1)] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Where long experiments keep trainings, and go on."),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu or a device; a GPU trains the larger size where there is one.")
    ] = "auto",
    so_far: Annotated[
        bool, typer.Option("--so-far", help="peng-regime: train nothing, show what the folder holds.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option("--steps", help="peng-regime: of each training from scratch, of tuning half.", min=2)
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option("--earlier", help="peng-regime: a record; what the folder does not hold of it stays."),
    ] = None,
    with_plain: Annotated[
        bool, typer.Option("--with-plain", help="tiny-lm: a ReLU model trained on the loss alone too.")
    ] = False,
    pack: Annotated[
        bool, typer.Option("--pack", help="tiny-lm: the ReLU model once more, keeping for its backward what fires.")
    ] = False,
    quick: Quick = False,
    json_file: JsonFile = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the table to this file.")] = None,
    figure: FigureFile = None,
) -> None:
    """Run a published experiment at a size that fits this machine, and print ours beside theirs."""
    from lazyneuron.cli.output import check_writable, write_record
    from lazyneuron.cli.screen import print_lines
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.core.record import write_text
    from lazyneuron.experiments.catalogue import experiment, experiments
    from lazyneuron.report import csv_table, curves_figure

    if name is None:
        print_lines(*(f"{one.name}: {one.title}" for one in experiments("reproduce").values()))
        return
    wanted = experiment(name, "reproduce")
    check_writable(json_file, csv_file, figure)
    request = {"data": data, "seeds": seeds or wanted.seeds, "quick": quick, "folder": folder, "with_plain": with_plain}
    if not name.startswith(_DAYS) and (so_far or steps is not None or earlier is not None):
        raise ConfigError(f"Only {_DAYS}... takes --so-far, --steps and --earlier.")
    begun = None if earlier is None else _earlier(name, earlier)
    days = {"so_far": so_far, "steps": steps, "begun": begun}
    record = _run(wanted, {**request, **days, "pack": pack, "device": _device(device)})
    _print(wanted, record)
    write_record(json_file, record)
    if csv_file is not None:
        write_text(csv_file, csv_table(record.data["rows"]))
    if figure is not None:
        curves_figure(record, figure)


def _earlier(name: str, path: Path) -> Record:
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.core.record import Record

    try:
        record = Record.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read; pass the record of an earlier run of {name}.") from error
    if record.data.get("experiment") != name:
        raise ConfigError(f"{path} is not a record of {name}.")
    return record


def _device(asked: str) -> str:
    import torch

    from lazyneuron.core.errors import ConfigError

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"torch cannot use the device {asked!r} here; leave out --device.") from error
    return asked


def _run(wanted: Experiment, request: dict[str, Any]) -> Record:
    from lazyneuron.cli.screen import progress_bar
    from lazyneuron.experiments.experiment import Request

    with progress_bar(wanted.name) as advance:
        return wanted.run(Request(**request, advance=advance))


def _print(wanted: Experiment, record: Record) -> None:
    from lazyneuron.cli.screen import print_lines, print_notes, print_table

    rows = [{k: "not published" if v is None else v for k, v in row.items()} for row in record.data["rows"]]
    print_table(wanted.title, rows)
    print_lines(record.data["finding"], f"Source: {wanted.source}.")
    print_notes([f"Differs: {record.data['differs']}"])
