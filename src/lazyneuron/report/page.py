"""Self-contained HTML pages from records: no script, no network, light and dark, screen and paper."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.record import Record
from lazyneuron.report import demo_view, sparsity_view
from lazyneuron.report.numbers import ratio, share, significant
from lazyneuron.report.style import DARK, LIGHT, PAPER
from lazyneuron.report.tables import html_table, provenance

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent / "templates"


def demo_page(record: Record) -> str:
    """The demo's result as one HTML document.

    Args:
        record: of kind ``"demo"``.

    Returns:
        The document; it needs nothing outside itself.

    Raises:
        DataError: the record is of another kind, or lacks a figure.
    """
    return _render("demo.html.j2", record, demo_view.view(record))


def sparsity_page(record: Record) -> str:
    """A measured model's sparsity as one HTML document.

    Args:
        record: of kind ``"measure"``, as ``SparsityReport.to_record`` makes it.

    Returns:
        The document; it needs nothing outside itself.

    Raises:
        DataError: the record is of another kind, or lacks a figure.
    """
    return _render("sparsity.html.j2", record, sparsity_view.view(record))


def _render(template: str, record: Record, view: Mapping[str, Any]) -> str:
    environment = _environment()
    density = view.get("mean_density")
    lit = None if density is None else round(100 * density)
    dots = set(random.Random(5).sample(range(100), lit or 0))
    more = {"record": record, "style": _style(), "provenance": provenance(record), "lit": lit, "lit_dots": dots}
    return environment.get_template(template).render(**view, **more)


def _style() -> str:
    """The style sheet, with the colours for a bright screen, a dark one, and paper."""
    bright, dark, paper = (";".join(f"--{k}:{v}" for k, v in theme.items()) for theme in (LIGHT, DARK, PAPER))
    return "\n".join(
        (
            f":root {{ color-scheme: light dark; {bright} }}",
            f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}",
            f"@media print {{ :root {{ color-scheme: light; {paper} }} }}",
            (_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": share, "number": significant, "ratio": ratio, "width": _width, "table": html_table}
    return environment


def _width(value: float) -> str:
    """A fraction as a CSS length."""
    return f"{100 * min(max(value, 0.0), 1.0):.2f}%"
