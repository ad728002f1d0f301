"""Running an experiment under a progress bar, and printing its tables; for the commands that do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal's error stream; what it gives is told the share that is done, and what is going on."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=1.0)

        def advance(share: float, note: str) -> None:
            progress.update(task, completed=share, description=note)

        yield advance


def print_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table for a terminal, or as wide as it is for a pipe or a file."""
    from lazyneuron.report import plain_table, rich_table

    if console.is_terminal:
        console.print(rich_table(rows, title=title))
    else:
        console.print(f"{title}\n{plain_table(rows)}", soft_wrap=True, highlight=False, markup=False)
    console.print()
