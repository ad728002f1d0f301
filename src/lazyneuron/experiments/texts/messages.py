"""The messages of compiled catalogues (gettext's ``.mo``), originals and translations."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

_MAGIC = 0x950412DE
_CHARSET = re.compile(rb"charset=([-\w]+)")


def messages(path: Path) -> Iterator[str]:
    """The translations in a catalogue, and the messages that they translate.

    Nothing comes of a file that is no catalogue, or is damaged.

    Source: the layout of MO files in the manual of GNU gettext: seven 32-bit words, the third and fourth and fifth of
        which are the number of strings and where the tables of originals and translations begin.
    """
    data = path.read_bytes()
    order = next((o for o in "<>" if len(data) >= 28 and struct.unpack_from(f"{o}I", data)[0] == _MAGIC), None)
    if order is None:
        return
    count, originals, translations = struct.unpack_from(f"{order}3I", data, 8)
    charset = "utf-8"
    try:
        for number in range(count):
            for table in (originals, translations):
                length, start = struct.unpack_from(f"{order}2I", data, table + 8 * number)
                raw = data[start : start + length]
                if len(raw) < length:
                    return
                if not number:  # the message of the empty original is the header
                    found = _CHARSET.search(raw)
                    charset = found.group(1).decode() if found else charset
                    continue
                for form in raw.decode(charset).split("\0"):  # the forms of a plural
                    yield form.split("\4")[-1]  # what stands before is the context
    except (struct.error, UnicodeDecodeError, LookupError):
        return
