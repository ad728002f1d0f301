"""Changing what a sealed document says without breaking its seal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lazyneuron.core.document import open_text, seal_text


def reseal(path: Path, change: Callable[[Any], Any]) -> None:
    """Put ``change`` of its content, or what it did to it if it returns None, into the document, with a valid seal."""
    sealed = open_text(path.read_bytes())
    whole = not (isinstance(sealed, dict) and sealed.keys() == {"parts", "content"})
    content = sealed if whole else sealed["content"]
    changed = change(content)
    changed = content if changed is None else changed
    path.write_text(seal_text(changed if whole else {**sealed, "content": changed}))
