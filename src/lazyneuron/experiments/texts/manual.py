"""The running text of manual pages, without their typesetting."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NEW = {"SH", "SS", "PP", "P", "LP", "TP", "IP", "HP", "TQ", "Pp", "Sh", "Ss", "It", "sp", "RS", "RE", "nf", "fi", "TH"}
_WORDS = {"B", "I", "BR", "RB", "BI", "IB", "IR", "RI", "SM", "Nm", "Ar", "Fl", "Xr", "Em", "Sy", "Li", "Pa", "Dv"}
_SIGNS = {
    r"\-": "-",
    r"\e": "\\",
    r"\&": "",
    r"\ ": " ",
    r"\~": " ",
    r"\(aq": "'",
    r"\(dq": '"',
    r"\(bu": "",
    r"\|": "",
}
_ESCAPE = re.compile(r"\\(?:f(?:\(..|\[[^]]*\]|.)|s[-+]?\d+|\*(?:\(..|\[[^]]*\]|.)|\(..|\[[^]]*\]|[-e&~| '\"^/,:%])")


def manual_paragraphs(source: str) -> Iterator[str]:
    """The paragraphs of a page in roff's ``man`` or ``mdoc`` macros, without tables and unknown macros."""
    words: list[str] = []
    silent = False  # inside .TS, .EQ, .de and what else is not running text
    for line in source.splitlines():
        if line[:1] not in (".", "'"):
            if not line.strip() and words:
                yield " ".join(words)
                words = []
            elif not silent:
                words.append(_plain(line))
            continue
        macro, _, rest = line[1:].strip().partition(" ")
        if macro in ("TS", "EQ", "de", "ig"):
            silent = True
        elif macro in ("TE", "EN", "", "."):
            silent = silent and macro == ""
        elif macro in _NEW and words:
            yield " ".join(words)
            words = []
        elif macro in _WORDS and not silent:
            words.append(_plain(rest.replace('"', "")))
    if words:
        yield " ".join(words)


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: _SIGNS.get(found.group(), ""), text)
