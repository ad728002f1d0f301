"""What a command shows: tables, lines and notes on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")


def print_table(title: str | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table that fits a terminal, or as wide as it is for a pipe or a file; after one with a title, an empty line."""
    from rich.console import Console

    from lazyneuron.report.tables import plain_table, rich_table

    console = Console()
    if console.is_terminal:
        console.print(rich_table(rows, title=title))
    else:
        print_lines(*([] if title is None else [title]), plain_table(rows))
    if title is not None:
        print_lines("")


def print_lines(*lines: str, style: str | None = None) -> None:
    """Texts as they are, however long."""
    from rich.console import Console

    console = Console()
    for line in lines:
        console.print(line, style=style, soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_notes(lines: Iterable[str]) -> None:
    """What is to be borne in mind, a line each, set off from the results."""
    print_lines(*lines, style="yellow")


@contextlib.contextmanager
def text_stream() -> Iterator[Callable[[str], None]]:
    """Text that comes piece by piece, each shown at once; ends its line, also when it is interrupted.

    Control characters, which could give a terminal orders, are shown as replacement characters.
    """
    import sys

    orders = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

    def show(piece: str) -> None:
        sys.stdout.write(piece.translate(orders))
        sys.stdout.flush()

    try:
        yield show
    finally:
        show("\n")


@contextlib.contextmanager
def status(text: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Say what is going on, where no share of it can be told; what it gives changes the text."""
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True, quiet=quiet).status(Text(text)) as shown:
        yield lambda changed: shown.update(Text(changed))


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal, gone afterwards; what it gives is told the share that is done, and what is going on."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda share, note: progress.update(task, completed=share, description=note)


def watched(items: Sequence[Item], title: str) -> Iterator[Item]:
    """The items one by one, under a bar."""
    with progress_bar(title) as advance:
        for done, item in enumerate(items):
            advance(done / len(items), title)
            yield item
