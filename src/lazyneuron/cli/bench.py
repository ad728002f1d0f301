"""``lazyneuron bench``: certified execution beside its alternatives, on synthetic blocks of any shape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from lazyneuron.experiments.bench.case import Case

_SOURCE = "Synthetic Gaussian weights and inputs; us are medians, speeds are medians of ratios within a round."


def bench(
    *,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the record to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Eight cases of one shape.")] = False,
    shape: Annotated[list[str] | None, typer.Option("--shape", help="1024x4096, or 2048x8192:gated.")] = None,
    tokens: Annotated[list[int] | None, typer.Option("--tokens", help="Tokens processed together.")] = None,
    density: Annotated[list[float] | None, typer.Option("--density", help="Share of neurons that fire.")] = None,
    dtype: Annotated[list[str] | None, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="Of torch; without it, its own choice.")] = None,
    against: Annotated[list[str] | None, typer.Option("--against", help="A baseline by name, or all.")] = None,
) -> None:
    """Time certified execution against dense and other methods on this machine, with quality and ceilings beside."""
    from rich.console import Console

    from lazyneuron.cli.output import check_writable
    from lazyneuron.experiments.bench.run import run

    cases = _cases(
        quick=quick,
        threads=threads,
        chosen={"shapes": shape, "tokens": tokens, "densities": density, "dtypes": dtype, "against": against},
    )
    check_writable(json_file)
    rows: list[dict[str, Any]] = []
    try:
        with _progress(Console(stderr=True)) as progress:
            task = progress.add_task("Measuring", total=len(cases), case="the machine's cost model, if it is new")

            def watch(done: int, total: int, row: dict[str, Any]) -> None:
                rows.append(row)
                following = "" if done == total else _words(cases[done])
                progress.update(task, completed=done, case=following)

            run(cases, path=json_file, watcher=watch)
    finally:
        if rows:  # after Ctrl-C too
            _print(rows, Console())
            if json_file is not None:
                text = f"{len(rows)} of {len(cases)} rows are in {json_file}"
                Console().print(text, soft_wrap=True, highlight=False, markup=False)


def _cases(*, quick: bool, threads: int | None, chosen: dict[str, list[Any] | None]) -> list[Case]:
    import torch

    from lazyneuron.core.environment import environment
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.experiments.bench.grid import check_threads, chosen_grid, default_grid, quick_grid

    count = torch.get_num_threads() if threads is None else threads
    if threads is not None:
        check_threads(threads, environment().cores)
    named = {key: value for key, value in chosen.items() if value}
    if quick and named:
        raise ConfigError("--quick measures fixed cases; leave it out to name shapes, tokens or others.")
    if quick:
        return quick_grid(count)
    return chosen_grid(threads=count, **named) if named else default_grid(count)  # type: ignore[arg-type]


def _progress(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[case]}"), console=console)


def _words(case: Case) -> str:
    return f"{case.shape}, {case.dtype}, {case.tokens} tokens, density {case.density:g}"


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    from lazyneuron.experiments.bench import view

    for name, group in view.grouped(rows).items():
        _table(console, name, [(view.short_row if console.is_terminal else view.case_row)(row) for row in group])
        if console.is_terminal:
            _notes(console, view.remarks(group))
    for name, group in view.baseline_groups(rows).items():
        _table(console, f"{name}: speed against dense, and quality", view.baseline_rows(group))
        _notes(console, view.reasons(group))
    console.print(_SOURCE, soft_wrap=True, highlight=False)


def _notes(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, style="yellow", soft_wrap=True, highlight=False, markup=False)


def _table(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    from lazyneuron.report import plain_table, rich_table

    if console.is_terminal:
        console.print(rich_table(rows, title=title))
    else:  # a pipe or a file has no width to fit into
        console.print(f"{title}\n{plain_table(rows)}", soft_wrap=True, highlight=False, markup=False)
    console.print()
