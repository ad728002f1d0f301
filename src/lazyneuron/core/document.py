"""JSON content under its checksum, as the text of a file."""

from __future__ import annotations

import hashlib
import json
from typing import Any

FORMAT = 2  # 1 was without checksums


def seal_text(content: Any) -> str:
    """JSON content with its checksum, as a document."""
    plain = json.loads(json.dumps(content))
    return json.dumps({"format": FORMAT, "sha256": _checksum(plain), "sealed": plain}, indent=1) + "\n"


def open_text(text: str | bytes) -> Any:
    """The content of what :func:`seal_text` wrote.

    Raises:
        ValueError, LookupError, TypeError, RecursionError: it is damaged, or no such document.
    """
    raw = json.loads(text)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or "sealed" not in raw:
        raise ValueError("it was not written by this version of lazyneuron")
    if _checksum(raw["sealed"]) != raw["sha256"]:
        raise ValueError("its text is not the one that was saved")
    return raw["sealed"]


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
