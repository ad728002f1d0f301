"""Render committed records into the documentation: ``python -m lazyneuron.experiments.render``.

Tables stand between ``<!-- results -->`` and ``<!-- /results -->``, or between marks of another name where a section
says ``page#name``; nothing else on a page is touched. A record of another processor, such as ``openvino-avx2.json``,
stands where a page has marks that end so (``results-avx2``).
"""

from __future__ import annotations

import re
from pathlib import Path

from lazyneuron.core.record import Record, write_text
from lazyneuron.experiments.catalogue import NAMES, experiments
from lazyneuron.experiments.experiment import Experiment
from lazyneuron.report import curves_figure, markdown_table, provenance

ROOT = Path(__file__).resolve().parents[3]
ENDINGS = ("avx2", "avx2-trained")  # other processors and models: how the names of their records end


def render(root: Path = ROOT) -> None:
    """Fill the pages with every record that is there, and draw its figures.

    Args:
        root: the project's folder.
    """
    pages: dict[str, list[str]] = {}
    for kind in NAMES:
        for name, one in experiments(kind).items():
            for ending in ("", *ENDINGS):
                path = root / "records" / f"{_of(name, ending)}.json"
                if not path.exists():
                    continue
                record = Record.from_json(path.read_text(encoding="utf-8"))
                for page, text in _sections(one, record, ending).items():
                    if not ending or marked(root, page):
                        pages.setdefault(page, []).append(text)
                draw(one, record, root / "docs" / "assets", ending)
    for page, texts in pages.items():
        fill(root / _page(page), "".join(texts).strip("\n") + "\n", mark=_mark(page))


def marked(root: Path, place: str) -> bool:
    """Whether a page has the marks of a place, ``page`` or ``page#name``."""
    return f"<!-- {_mark(place)} -->" in (root / _page(place)).read_text(encoding="utf-8")


def _page(place: str) -> str:
    return place.partition("#")[0]


def _mark(place: str) -> str:
    return place.partition("#")[2] or "results"


def _of(name: str, ending: str) -> str:
    """A name, with the ending of a record after it."""
    return f"{name}-{ending}" if ending else name


def draw(one: Experiment, record: Record, folder: Path, ending: str = "") -> None:
    """Draw an experiment's figures into a folder."""
    if one.kind == "reproduce":
        curves_figure(record, folder / f"{_of(one.name, ending)}.png")
    for name, figure in one.figures.items():
        figure(record, folder / _figure(name, ending))


def _figure(name: str, ending: str) -> str:
    return f"{_of(Path(name).stem, ending)}{Path(name).suffix}"


def _sections(one: Experiment, record: Record, ending: str) -> dict[str, str]:
    found = {page: section(record) for page, section in one.sections.items()}
    if one.kind == "reproduce":
        found["docs/reproduce.md"] = published_section(one, record)
    if not ending:
        return found
    return {f"{_page(page)}#{_of(_mark(page), ending)}": _with_own(one, text, ending) for page, text in found.items()}


def _with_own(one: Experiment, text: str, ending: str) -> str:
    """A section that shows the figures of its own record."""
    for name in one.figures:
        text = text.replace(f"assets/{name}", f"assets/{_figure(name, ending)}")
    return text


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
