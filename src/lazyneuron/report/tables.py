"""Tables from rows: plain text, Markdown, HTML, comma-separated values, or rich for a terminal."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lazyneuron.core.environment import short_commit
from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.report.numbers import NOTHING, cell, counted

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]

_NUMBER = re.compile(rf"[<>]?-?\d[\d.]*(e-?\d+)?x?|{NOTHING}")


def columns(rows: Sequence[Row]) -> list[str]:
    """The keys of all rows, in the order of their first appearance.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("A table needs at least one row, got none; check the record that it is made from.")
    return list(dict.fromkeys(key for row in rows for key in row))


def plain_table(rows: Sequence[Row]) -> str:
    """The rows as aligned text; columns of numbers are aligned to the right."""
    names, body, right = _cells(rows)
    width = [max(len(line[k]) for line in [names, *body]) for k in range(len(names))]
    lines = (
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, width, right, strict=True)).rstrip()
        for line in [names, *body]
    )
    return "\n".join(lines)


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    names, body, right = _cells(rows)
    rule = ["---:" if r else "---" for r in right]
    return "\n".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in line)} |" for line in [names, rule, *body])


def rich_table(rows: Sequence[Row], *, title: str | None = None) -> Table:
    """The rows as a table that :mod:`rich` prints."""
    from rich.markup import escape
    from rich.table import Table

    names, body, right = _cells(rows)
    table = Table(title=title, header_style="bold", box=None, padding=(0, 1, 0, 0), title_justify="left")
    for name, is_right in zip(names, right, strict=True):
        table.add_column(escape(name), justify="right" if is_right else "left", overflow="fold")
    for line in body:
        table.add_row(*map(escape, line))
    return table


def html_table(rows: Sequence[Row], *, emphasised: int | None = None) -> str:
    """The rows as an HTML table; columns of numbers have the class ``number``.

    Args:
        rows: a value with a method ``__html__`` is HTML already, all others are text.
        emphasised: place of a row that stands out.
    """
    names, body, right = _cells(rows)
    kinds = [' class="number"' if r else "" for r in right]
    lines = ["".join(f"<th{kind}>{html.escape(name)}</th>" for kind, name in zip(kinds, names, strict=True))]
    for row, texts in zip(rows, body, strict=True):
        drawn = (
            row[n].__html__() if hasattr(row.get(n), "__html__") else html.escape(t)
            for n, t in zip(names, texts, strict=True)
        )
        lines.append("".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, drawn, strict=True)))
    marks = [' class="emphasised"' if k == emphasised else "" for k in range(len(rows))]
    inner = "\n".join(f"<tr{mark}>{line}</tr>" for mark, line in zip(marks, lines[1:], strict=True))
    return f"<table>\n<thead><tr>{lines[0]}</tr></thead>\n<tbody>\n{inner}\n</tbody>\n</table>"


def csv_table(rows: Sequence[Row]) -> str:
    """The rows as comma-separated values at full precision, with a header; empty where a row has no value.

    Raises:
        DataError: there are no rows.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def provenance(record: Record) -> str:
    """One line that says where a record was measured."""
    at = record.environment
    seed = "" if record.seed is None else f", seed {record.seed}"
    used = [counted(at.cores, "core"), counted(at.threads, "thread"), *at.isa]
    return (
        f"Measured at commit {short_commit(at.commit)} with lazyneuron {at.lazyneuron}, torch {at.torch}, "
        f"Python {at.python} on {at.processor} ({', '.join(used)}){seed}."
    )


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], list[bool]]:
    names = columns(rows)
    body = [[cell(row.get(name)) for name in names] for row in rows]
    right = [all(_NUMBER.fullmatch(line[k]) for line in body) for k in range(len(names))]
    return names, body, right
