"""The one style of pages and figures: colours in light, dark and on paper, and how matplotlib draws with them."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lazyneuron.core.record import write_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

# fmt: off
LIGHT = {
    "page": "#f7f5f1", "card": "#ffffff", "line": "#e3dfd7", "text": "#1d1b19", "soft": "#6a645c", "track": "#ece8e0",
    "fire": "#d9480f", "fire-soft": "#f6bd9c", "mark": "#33302c", "base": "#8d867c", "other": "#b8b1a6",
    "chip": "#fbe9df",
}
DARK = {
    "page": "#141312", "card": "#1e1c1a", "line": "#34312d", "text": "#efebe4", "soft": "#a49c91", "track": "#2c2926",
    "fire": "#ff9248", "fire-soft": "#7a4523", "mark": "#efebe4", "base": "#8b847a", "other": "#5d574f",
    "chip": "#3a2717",
}
PAPER = LIGHT | {
    "page": "#fff", "card": "#fff", "line": "#ccc", "text": "#000", "soft": "#444", "track": "#eee", "mark": "#222",
}
SERIES = (
    "#8d867c", "#2f6f8f", "#5b8c5a", "#b08900", "#d9480f", "#7a4f9a", "#1c1c1c", "#c05780", "#3aa6a0",
)
# fmt: on
_RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": LIGHT["line"],
    "axes.grid": True,
    "axes.labelcolor": LIGHT["soft"],
    "axes.prop_cycle": f"cycler('color', {list(SERIES)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": LIGHT["text"],
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 9.5,
    "grid.color": LIGHT["line"],
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.color": LIGHT["text"],
    "xtick.color": LIGHT["soft"],
    "xtick.major.pad": 9,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": LIGHT["soft"],
    "ytick.major.pad": 6,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}
_LENGTHY = re.compile(r"(\.\d\d)\d+")
_FONT = re.compile(r"font: (?:(bold|\d+) )?([\d.]+px)[^;]*")
_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_COLOR = re.compile(r"#[0-9a-f]{6}\b")


@contextlib.contextmanager
def drawing(width: float, height: float, *, font: float = 9.5) -> Iterator[Figure]:
    """A figure in the house's style, whatever the settings of matplotlib; they are as before afterwards.

    Args:
        width, height: inches of 72 points.
        font: size of texts, in points.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _RC | {"font.size": font}]):  # type: ignore[attr-defined]
        yield Figure(figsize=(width, height), layout="constrained")


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, the same bytes for the same figure.

    Raises:
        DataError: the file cannot be written.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=170, metadata={"Software": "lazyneuron"})
    write_bytes(path, drawn.getvalue())


def name_artist(artist: Artist, css_class: str, *, hint: str = "") -> None:
    """Give a part of a figure a class in the SVG, and maybe a text that is shown when it is pointed at."""
    artist.set_gid(f"{css_class}|{hint}")


def draw_svg(figure: Figure, *, title: str, colors: Mapping[str, str] | None = None) -> str:
    """A figure as an SVG element for a page: its texts are texts, its colours the page's own, its width the page's.

    Args:
        figure: made by :func:`drawing`, and still within it.
        title: for who cannot see it; unlike that of other figures on the page.
        colors: CSS colours of more colours than those of ``LIGHT``, by their hexadecimal number.
    """
    import matplotlib

    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    known = {number: f"var(--{name})" for name, number in LIGHT.items()} | dict(colors or {})
    root = _for_page(ElementTree.fromstring(drawn.getvalue()), known)
    root.attrib |= {"role": "img", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode")


def _for_page(element: ElementTree.Element, known: Mapping[str, str], *, shared: bool = False) -> ElementTree.Element:
    """Without namespaces, fonts, clipping, empty groups and needless digits; with the page's colours and classes."""
    kind = element.tag.rpartition("}")[2]
    given: dict[str, str] = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    fitted = ElementTree.Element(kind)
    fitted.text = (element.text or "").strip()
    css_class, named, hint = given.get("id", "").partition("|")
    if named:
        fitted.set("class", css_class)
    elif shared:
        fitted.set("id", css_class)
    if hint:
        ElementTree.SubElement(fitted, "title").text = hint
    for key in ("d", "x", "y", "transform", "href", "viewBox"):
        if key in given and not given[key].startswith("rotate(-0"):
            fitted.set(key, " ".join(_LENGTHY.sub(r"\1", given[key]).split()))
    if "style" in given:
        style = _FONT.sub(lambda m: f"font-size: {m[2]}" + (f"; font-weight: {m[1]}" if m[1] else ""), given["style"])
        style = _COLOR.sub(lambda m: known.get(m[0], m[0]), _FAMILY.sub("", style))
        fitted.set("style", style.replace(": ", ":").replace("; ", ";"))
    children = [_for_page(child, known, shared=kind == "defs") for child in element]
    fitted.extend(child for child in children if not _is_empty(child))
    return fitted


def _is_empty(element: ElementTree.Element) -> bool:
    """Whether nothing is seen of it on the page, which has a style and a description of its own."""
    if element.tag in ("g", "defs"):
        return not len(element)
    return element.tag in ("metadata", "clipPath", "style") or element.get("style") == "fill:none"
