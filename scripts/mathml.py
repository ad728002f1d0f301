"""A hook of the documentation's build: formulas become MathML, which browsers show without scripts or a network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace every formula of a page; a command that stays untranslated ends the build."""
    content = _INLINE.sub(lambda match: _mathml(match.group(1), "inline"), content)
    return _BLOCK.sub(lambda match: _mathml(match.group(1), "block"), content)


def _mathml(escaped: str, display: str) -> str:
    formula = html.unescape(escaped).strip()
    found: str = convert(formula, display=display)
    if "\\" in found:
        raise ValueError(f"This formula has a command that cannot be shown: {formula}")
    return found
