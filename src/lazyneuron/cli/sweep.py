"""``lazyneuron sweep``: the frontier of density and quality over recipes and strengths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lazyneuron.cli.options import FigureFile, JsonFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazyneuron.core.record import Record
    from lazyneuron.experiments.sweep import Finished


def sweep(
    task: Annotated[str, typer.Argument(help="digits, or package.module:callable that trains one point.")],
    *,
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value,value; several times.")] = None,
    out: Annotated[Path, typer.Option("--out", help="File of the sweep; finished points in it are skipped.")],
    processes: Annotated[int | None, typer.Option("--processes", help="At a time; else one a core.", min=1)] = None,
    quality: Annotated[str, typer.Option("--quality", help="What the quality is, for titles.")] = "quality",
    json_file: JsonFile = None,
    figure: FigureFile = None,
) -> None:
    """Train every combination of the settings, and name the points that no other one beats."""
    from lazyneuron.cli.output import check_writable, write_record
    from lazyneuron.experiments.sweep import read_finished, sweep_record
    from lazyneuron.report import frontier_figure

    check_writable(out, json_file, figure)
    failed = [point for point in _run(task, settings or (), out=out, processes=processes) if point.error is not None]
    record = sweep_record([*read_finished(out, task=task), *failed], quality=quality)
    _print(record)
    write_record(json_file, record)
    if figure is not None:
        frontier_figure(record, figure)


def _run(task: str, settings: Sequence[str], *, out: Path, processes: int | None) -> tuple[Finished, ...]:
    from lazyneuron.cli.screen import progress_bar
    from lazyneuron.experiments.sweep import grid, read_settings
    from lazyneuron.experiments.sweep import sweep as run

    points = grid(read_settings(settings))
    with progress_bar(task) as advance:
        return run(
            task,
            points,
            file=out,
            processes=processes,
            advance=lambda done, total: advance(done / total, f"{task}, {done} of {total} points"),
        )


def _print(record: Record) -> None:
    from lazyneuron.cli.screen import print_lines, print_notes, print_table
    from lazyneuron.report import frontier_rows

    print_table(record.data["task"], frontier_rows(record))
    print_lines(f"Pareto points: {'; '.join(record.data['frontier'])}.")
    print_notes(f"Failed: {line}" for line in record.data["failed"])
