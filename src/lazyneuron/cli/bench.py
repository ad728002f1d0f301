"""``lazyneuron bench``: certified execution beside its alternatives on synthetic blocks, and the other benchmarks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lazyneuron.cli.options import JsonFile, Quick
from lazyneuron.experiments.catalogue import NAMES

if TYPE_CHECKING:
    from lazyneuron.core.record import Record
    from lazyneuron.experiments.bench.blocks.case import Case
    from lazyneuron.experiments.experiment import Experiment, Request

_SOURCE = "Synthetic Gaussian weights and inputs; us are medians, speeds are medians of ratios within a round."
_GRID = "accelerate"
_CASES = "generate"
_ENCODER = "encoder"
_EXPORTED = "openvino"
_NAME_HELP = f"Which benchmark: {', '.join(NAMES['benchmark'])}. Only {_GRID} takes shapes and other cases."


def bench(
    name: Annotated[str, typer.Argument(help=_NAME_HELP)] = _GRID,
    *,
    json_file: JsonFile = None,
    quick: Quick = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the parts that the file of --json has; not of all.")
    ] = False,
    shape: Annotated[list[str] | None, typer.Option("--shape", help="1024x4096, or 2048x8192:gated.")] = None,
    tokens: Annotated[list[int] | None, typer.Option("--tokens", help="Tokens processed together.")] = None,
    density: Annotated[list[float] | None, typer.Option("--density", help="Share of neurons that fire.")] = None,
    dtype: Annotated[list[str] | None, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="Of torch; without it, its own choice.")] = None,
    against: Annotated[list[str] | None, typer.Option("--against", help="A baseline by name, or all.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Cases of generate whose names contain this; * for anything.")
    ] = None,
    peers_python: Annotated[
        Path | None,
        typer.Option("--peers-python", help="The interpreter that has the other engines of encoder, generate."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="encoder: a sparse MiniLM that the demo saved; openvino: keeps converted models."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="encoder: a file or folder of your own text beside the machine's.")
    ] = None,
) -> None:
    """Time certified execution against dense and other methods on this machine, with quality and ceilings beside."""
    from lazyneuron.cli.output import check_writable
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.experiments.catalogue import experiment
    from lazyneuron.experiments.experiment import Request

    wanted = experiment(name, "benchmark")
    chosen = {"shapes": shape, "tokens": tokens, "densities": density, "dtypes": dtype, "against": against}
    if name != _CASES and only:
        raise ConfigError(f"Only the benchmark {_CASES} takes --only.")
    if name not in (_CASES, _ENCODER) and peers_python is not None:
        raise ConfigError(f"Only the benchmarks {_ENCODER} and {_CASES} take --peers-python.")
    if name not in (_ENCODER, _EXPORTED) and model is not None:
        raise ConfigError(f"Only the benchmarks {_ENCODER} and {_EXPORTED} take --model.")
    if name != _ENCODER and data is not None:
        raise ConfigError(f"Only the benchmark {_ENCODER} takes --data.")
    if name == _GRID:
        cases = _cases(quick=quick, threads=threads, chosen=chosen)
        check_writable(json_file)
        _measure(cases, json_file)
        return
    if threads is not None or any(chosen.values()):
        raise ConfigError(f"Only the benchmark {_GRID} takes shapes, tokens, densities, dtypes, threads and baselines.")
    check_writable(json_file)
    request = Request(quick=quick, only=tuple(only or ()), peers_python=peers_python, folder=model, data=data)
    _run(wanted, request, json_file=json_file, resume=resume)


def _measure(cases: list[Case], json_file: Path | None) -> None:
    from lazyneuron.cli.output import write_record
    from lazyneuron.cli.screen import print_lines, progress_bar
    from lazyneuron.experiments.bench.blocks.measuring import measure_cases

    rows: list[dict[str, Any]] = []
    try:
        with progress_bar("Measuring the machine's cost model, if it is new") as advance:

            def watch(done: int, total: int, row: dict[str, Any]) -> None:
                rows.append(row)
                following = "" if done == total else f": {_words(cases[done])}"
                advance(done / total, f"{done} of {total}{following}")

            measure_cases(cases, keep=lambda record: write_record(json_file, record), watcher=watch)
    finally:
        if rows:  # after Ctrl-C too
            _print(rows)
            if json_file is not None:
                print_lines(f"{len(rows)} of {len(cases)} rows are in {json_file}")


def _run(wanted: Experiment, asked: Request, *, json_file: Path | None, resume: bool) -> None:
    """Run a benchmark, and print its part of the documentation."""
    from rich.console import Console
    from rich.markdown import Markdown

    from lazyneuron.cli.output import write_record
    from lazyneuron.cli.screen import progress_bar
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.core.record import Record

    if resume and json_file is None:
        raise ConfigError("--resume goes on with the record in the file of --json; name it.")
    begun = None
    if resume and json_file is not None and json_file.exists():
        begun = Record.from_json(json_file.read_text(encoding="utf-8"))
        if begun.kind != f"benchmark/{wanted.name}":
            raise ConfigError(f"{json_file} holds a record of {begun.kind}, not of benchmark/{wanted.name}.")

    def keep(record: Record) -> None:
        write_record(json_file, record)

    with progress_bar(wanted.name) as advance:
        record = wanted.run(dataclasses.replace(asked, begun=begun, advance=advance, keep=keep))
    keep(record)
    console = Console()
    for section in wanted.sections.values():
        text = section(record)
        console.print(Markdown(text) if console.is_terminal else text, soft_wrap=True, highlight=False, markup=False)


def _cases(*, quick: bool, threads: int | None, chosen: dict[str, list[Any] | None]) -> list[Case]:
    import torch

    from lazyneuron.core.environment import environment
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.experiments.bench.blocks.grid import check_threads, chosen_grid, default_grid, quick_grid

    count = torch.get_num_threads() if threads is None else threads
    if threads is not None:
        check_threads(threads, environment().cores)
    named = {key: value for key, value in chosen.items() if value}
    if quick and named:
        raise ConfigError("--quick measures fixed cases; leave it out to name shapes, tokens or others.")
    if quick:
        return quick_grid(count)
    return chosen_grid(threads=count, **named) if named else default_grid(count)  # type: ignore[arg-type]


def _words(case: Case) -> str:
    return f"{case.shape}, {case.dtype}, {case.tokens} tokens, density {case.density:g}"


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from lazyneuron.cli.screen import print_lines, print_notes, print_table
    from lazyneuron.experiments.bench.blocks import view

    is_terminal = Console().is_terminal
    for name, group in view.grouped(rows).items():
        print_table(name, [(view.short_row if is_terminal else view.case_row)(row) for row in group])
        if is_terminal:
            print_notes(view.remarks(group))
    for name, group in view.baseline_groups(rows).items():
        print_table(f"{name}: speed against dense, and quality", view.baseline_rows(group))
        print_notes(view.reasons(group))
    print_lines(_SOURCE)
