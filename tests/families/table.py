"""The documentation's table of families and verbs: ``python -m tests.families.table`` writes it (half a minute)."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import torch

from lazyneuron.core.environment import environment
from lazyneuron.report import markdown_table
from tests.families.families import NAMES
from tests.families.verbs import Row, row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
FIGURE = re.compile(r"(<!-- figure -->\n).*?(<!-- /figure -->)", re.DOTALL)
MARKED = re.compile(r"(<!-- table -->\n).*?(<!-- /table -->)", re.DOTALL)


def line(found: Row) -> dict[str, str]:
    """A family's cells as a row of the table."""
    return {"model": found.title, **found.cells, "why": found.why or "-"}


def markdown(found: Row) -> str:
    """The row's own line in the page."""
    return markdown_table([line(found)]).splitlines()[-1]


def main() -> None:
    """Put the table into the page."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own
        rows = [row(name) for name in NAMES]
    text = markdown_table([line(found) for found in rows]) + "\n"
    page = MARKED.sub(lambda m: m[1] + text + m[2], PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(FIGURE.sub(lambda m: m[1] + _figure(rows) + m[2], page), encoding="utf-8")


def _figure(rows: list[Row]) -> str:
    facts, worst = environment(), max(found.difference for found in rows)
    return (
        f"The largest difference between dense and accelerated over these {len(rows)} models was "
        f"{worst:.1e} of the largest output, with torch {facts.torch} on {facts.processor} ({', '.join(facts.isa)}).\n"
    )


if __name__ == "__main__":
    main()
