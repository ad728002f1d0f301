"""Render committed records into the documentation: ``python -m lazyneuron.experiments.render``.

Tables stand between ``<!-- results -->`` and ``<!-- /results -->``, or between marks of another name where a section
says ``page#name``; nothing else on a page is touched.
"""

from __future__ import annotations

import re
from pathlib import Path

from lazyneuron.core.record import Record, write_text
from lazyneuron.experiments.catalogue import NAMES, experiments
from lazyneuron.experiments.experiment import Experiment
from lazyneuron.report import curves_figure, markdown_table, provenance

ROOT = Path(__file__).resolve().parents[3]


def render(root: Path = ROOT) -> None:
    """Fill the pages with every record that is there, and draw its figures.

    Args:
        root: the project's folder.
    """
    pages: dict[str, list[str]] = {}
    for kind in NAMES:
        for name, one in experiments(kind).items():
            path = root / "records" / f"{name}.json"
            if not path.exists():
                continue
            record = Record.from_json(path.read_text(encoding="utf-8"))
            for page, text in _sections(one, record).items():
                pages.setdefault(page, []).append(text)
            draw(one, record, root / "docs" / "assets")
    for page, texts in pages.items():
        name, _, mark = page.partition("#")
        fill(root / name, "".join(texts).strip("\n") + "\n", mark=mark or "results")


def draw(one: Experiment, record: Record, folder: Path) -> None:
    """Draw an experiment's figures into a folder."""
    if one.kind == "reproduce":
        curves_figure(record, folder / f"{one.name}.png")
    for name, figure in one.figures.items():
        figure(record, folder / name)


def _sections(one: Experiment, record: Record) -> dict[str, str]:
    found = {page: section(record) for page, section in one.sections.items()}
    if one.kind == "reproduce":
        found["docs/reproduce.md"] = published_section(one, record)
    return found


def published_section(one: Experiment, record: Record) -> str:
    """A reproduced table as Markdown: what was found, the table, the figure, and what differs."""
    data = record.data
    rows = [{key: "not published" if value is None else value for key, value in row.items()} for row in data["rows"]]
    settings = {key: value for key, value in data["settings"].items() if key not in ("runs", "variants")}
    parts = (
        f"## {one.title}",
        f"`lazyneuron reproduce {one.name}`. Source: {one.source}.",
        f"**{data['finding']}**",
        markdown_table(rows),
        f"![{one.title}](assets/{one.name}.png)",
        f"*What differs:* {data['differs']}",
        f"*Settings:* {', '.join(f'{key} {value}' for key, value in settings.items())}.",
        provenance(record),
    )
    return "\n\n".join(parts) + "\n\n"


def fill(page: Path, text: str, *, mark: str = "results") -> None:
    """Put a text between the markers of a page."""
    content = page.read_text(encoding="utf-8")
    marked = re.compile(rf"(<!-- {re.escape(mark)} -->\n).*?(<!-- /{re.escape(mark)} -->)", re.DOTALL)
    if not marked.search(content):
        raise SystemExit(f"{page} has no {mark} markers.")
    write_text(page, marked.sub(lambda m: m.group(1) + text + m.group(2), content))


if __name__ == "__main__":
    render()
