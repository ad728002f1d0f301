"""The kinds of text: where their files lie, and how each is read."""

from __future__ import annotations

import functools
import gzip
import re
import sys
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lazyneuron.core.errors import DataError
from lazyneuron.data.lines import numbered_lines
from lazyneuron.experiments.demo.corpus import library_sources, snippets
from lazyneuron.experiments.texts.manual import manual_paragraphs
from lazyneuron.experiments.texts.messages import messages

Read = Callable[[], Iterable[str]]


class File(NamedTuple):
    """A file: its name, how it is read, and what has to be on one side of the split with it."""

    name: str
    read: Read
    group: str | None = None


Files = Iterator[File]
OWN = "own files"
_LARGEST = 2_000_000  # bytes; what is longer is data rather than text
_EMPTY_LINE = re.compile(r"\n\s*\n")
_LICENCE = re.compile(r"^(licen[cs]e|copying|copyright|notice)", re.IGNORECASE)
_CHANGES = re.compile(r"^(change(s|log)|news|history|release)", re.IGNORECASE)
_DOCUMENT = re.compile(r"^(readme|metadata$|faq|todo|authors|install)|\.(md|rst|txt)(\.gz)?$", re.IGNORECASE)


def _shared() -> list[Path]:
    """The folders of what programs share, as the file hierarchy standard names them."""
    places = (Path(sys.prefix) / "share", Path("/usr/share"), Path("/usr/local/share"), Path("/opt/homebrew/share"))
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def _packages() -> Path:
    return Path(sysconfig.get_paths()["purelib"])


def _below(root: Path, pattern: str = "*") -> Iterator[tuple[str, Path]]:
    """Each file below a folder, named by its path in it."""
    if root.is_dir():
        for path in sorted(root.rglob(pattern)):
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(root).as_posix(), path


def _text(path: Path) -> str:
    """What stands in a file, unpacked; nothing if it cannot be read as UTF-8."""
    try:
        if path.stat().st_size > _LARGEST:
            return ""
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(_LARGEST).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return ""


def _paragraphs(path: Path) -> Read:
    return lambda: _EMPTY_LINE.split(_text(path))


def _of_python(source: Callable[[], str], *, documents: bool) -> Read:
    return lambda: [s.text for s in snippets(source(), "") if (s.kind == "docstring") == documents]


def _manual(path: Path) -> Iterable[str]:
    return manual_paragraphs(_text(path))


def _entries(read: Read) -> Iterable[str]:
    return [entry for paragraph in read() for entry in re.split(r"\n\s*[-*+] ", paragraph)]


def code() -> Files:
    """Lines and comments of Python's standard library."""
    for name, source in library_sources():
        yield File(name, _of_python(functools.partial(str, source), documents=False))


def docstrings() -> Files:
    """Documentation strings of the standard library and of installed packages."""
    for name, path in _below(_packages(), "*.py"):
        yield File(name, _of_python(functools.partial(_text, path), documents=True))
    for name, source in library_sources():
        yield File(name, _of_python(functools.partial(str, source), documents=True))


def _documents(wanted: Callable[[str], bool]) -> Files:
    for root in (_packages(), *(place / "doc" for place in _shared())):
        for name, path in _below(root):
            if wanted(path.name):
                yield File(name, _paragraphs(path))


def documentation() -> Files:
    """What packages and programs say of themselves, with neither licences nor lists of changes."""
    return _documents(lambda n: bool(_DOCUMENT.search(n)) and not (_LICENCE.search(n) or _CHANGES.search(n)))


def licences() -> Files:
    """Licences and notices of copyright."""
    yield from _documents(lambda name: bool(_LICENCE.search(name)))
    for place in _shared():
        for name, path in _below(place / "common-licenses"):
            yield File(name, _paragraphs(path))


def changes() -> Files:
    """What changed between releases: an entry a line."""
    for name, read, _ in _documents(lambda name: bool(_CHANGES.search(name))):
        yield File(name, functools.partial(_entries, read))


def manuals() -> Files:
    """Manual pages, in all languages that are there; those of one program are on one side of the split."""
    for place in _shared():
        for name, path in _below(place / "man"):
            yield File(name, functools.partial(_manual, path), path.name)


def catalogues() -> Files:
    """Message catalogues, in all languages that are there; those of one program are on one side of the split."""
    for root in (_packages(), *_shared()):
        for name, path in _below(root, "*.mo"):
            yield File(name, functools.partial(messages, path), path.name)


def own(folder: Path) -> Callable[[], Files]:
    """A user's own text: one file, or every file below a folder that is text; a line each.

    Raises:
        DataError: when files are listed, there is no such file or folder.
    """

    def files() -> Files:
        if not folder.exists():
            raise DataError(f"There is no file or folder {folder}; name one that holds text.")
        for name, path in _below(folder) if folder.is_dir() else [(folder.name, folder)]:
            yield File(name, functools.partial(_lines, path))

    return files


def _lines(path: Path) -> Iterator[str]:
    try:
        for _, line in numbered_lines(path):
            yield line
    except DataError:
        return


KINDS: dict[str, Callable[[], Files]] = {
    "code": code,
    "docstrings": docstrings,
    "documentation": documentation,
    "licences": licences,
    "changes": changes,
    "manuals": manuals,
    "catalogues": catalogues,
}
