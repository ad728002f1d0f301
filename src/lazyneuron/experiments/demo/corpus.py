"""Real text that is on every machine: code lines, comments and docstrings of Python's own standard library."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import random
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from lazyneuron.core.errors import DataError

KINDS = ("line", "comment", "docstring")
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_SHORTEST, _LONGEST = 16, 400
_WORD = re.compile(r"[A-Za-z]{2,}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snippet:
    """One piece of text.

    Attributes:
        text: the text, white space collapsed.
        kind: one of :data:`KINDS`.
        file: path of its file, relative to the corpus's root.
    """

    text: str
    kind: str
    file: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Train and held-out snippets; no file and no text is in both."""

    train: tuple[Snippet, ...]
    held_out: tuple[Snippet, ...]

    def sample(self, part: str, count: int, *, seed: int) -> list[str]:
        """``count`` texts of one part, drawn evenly from the kinds.

        Args:
            part: ``"train"`` or ``"held_out"``.
            count: how many; fewer come back when the part has not enough.
            seed: of the draw.
        """
        source: tuple[Snippet, ...] = getattr(self, part)
        generator = random.Random(seed)
        drawn: list[str] = []
        for index, kind in enumerate(KINDS):
            texts = [s.text for s in source if s.kind == kind]
            generator.shuffle(texts)
            drawn += texts[: (count + index) // len(KINDS)]
        generator.shuffle(drawn)
        return drawn


def is_held_out(file: str) -> bool:
    """Does this file belong to the held-out part? One in eight, by a hash of its path: the same on every machine."""
    return hashlib.sha256(file.encode()).digest()[0] % 8 == 0


def _clean(text: str) -> str | None:
    text = " ".join(text.split())
    return text if _SHORTEST <= len(text) <= _LONGEST and len(_WORD.findall(text)) >= 3 else None


def _docstrings(source: str) -> Iterator[tuple[str, range]]:
    """Each docstring with the line numbers that it takes up, from 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old sources
        tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text is not None:
                yield text, range(node.body[0].lineno - 1, node.body[0].end_lineno or node.body[0].lineno)


def _comments_and_lines(source: str, taken: set[int]) -> Iterator[tuple[str, str]]:
    block: list[str] = []
    for number, raw in enumerate([*source.split("\n"), ""]):
        line = raw.strip()
        if line.startswith("#") and number not in taken:
            block += [] if line.startswith("#!") else [line.lstrip("#: ")]
            continue
        if block:
            yield "comment", " ".join(block)
            block = []
        if number not in taken:
            yield "line", line


def snippets(source: str, file: str) -> list[Snippet]:
    """The snippets of one Python source text; empty when it does not parse."""
    try:
        documents = list(_docstrings(source))
    except (SyntaxError, ValueError, RecursionError):
        return []
    taken = {number for _, numbers in documents for number in numbers}
    found = [("docstring", part) for text, _ in documents for part in re.split(r"\n\s*\n", text)]
    found += _comments_and_lines(source, taken)
    return [Snippet(text=t, kind=kind, file=file) for kind, raw in found if (t := _clean(raw)) is not None]


def library_sources(root: Path | None = None) -> Iterator[tuple[str, str]]:
    """Path and text of every Python source below a folder, without tests and installed packages.

    Args:
        root: the folder; the running Python's standard library when None. Paths are relative to it.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    for path in sorted(root.rglob("*.py")):
        file = path.relative_to(root)
        if _SKIPPED_FOLDERS.intersection(file.parts):
            continue
        try:
            yield file.as_posix(), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue


def read_corpus(root: Path | None = None) -> Corpus:
    """Read every Python source below ``root``.

    Args:
        root: a folder; the running Python's standard library when None.

    Returns:
        Each distinct text once, split by file; a text found on both sides is kept for training only.

    Raises:
        DataError: there are no Python sources with text on both sides of the split.
    """
    parts: dict[bool, dict[str, Snippet]] = {False: {}, True: {}}
    for file, source in library_sources(root):
        part = parts[is_held_out(file)]
        for snippet in snippets(source, file):
            part.setdefault(snippet.text, snippet)
    train = tuple(parts[False].values())
    held_out = tuple(s for text, s in parts[True].items() if text not in parts[False])
    if not train or not held_out:
        place = "this Python" if root is None else root
        raise DataError(f"Found no Python sources to read text from in {place}; pass a folder with .py files.")
    return Corpus(train=train, held_out=held_out)
