"""Python sources of this machine as training and held-out documents: the standard library and installed packages."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.demo.corpus import is_held_out, library_sources

LIBRARY = "the standard library"
_SKIPPED = {"_vendor", "vendor", "_vendored_packages", "site-packages"}
_TABLES = re.compile(r"(^|/)(encodings|pydoc_data|unicodedata|_sysconfigdata)")
_PLAIN = re.compile(r"[A-Za-z_\s]")
_LONGEST, _LEAST_PLAIN = 120_000, 0.7  # longer files, and those with fewer letters, are mostly tables
_TELLING = 24  # characters from which on a line is taken to name its file
_MOST_SHARED = 1 / 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """One source file.

    Attributes:
        name: its path, relative to its root.
        package: the top-level package, or :data:`LIBRARY`.
        text: the source.
    """

    name: str
    package: str
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Documents for training and two kinds of held-out ones.

    Attributes:
        train: to learn from.
        files: of packages that are learned from, but other files.
        packages: whole packages that nothing was learned from.
        left_out: held-out files of which over a third of the telling lines stand in a training document.
    """

    train: tuple[Document, ...]
    files: tuple[Document, ...]
    packages: tuple[Document, ...]
    left_out: int


def read_sources(
    *,
    limit: int = 24_000_000,
    package_limit: int = 2_000_000,
    library: Path | None = None,
    installed: Path | None = None,
) -> Sources:
    """Read, leave out duplicates and split: by file one in eight, and one package in eight as a whole.

    Args:
        limit: characters to train on; the standard library comes first, then packages in the order of a hash.
        package_limit: characters of one package, so that none outweighs the others.
        library: the standard library's folder; this Python's when None.
        installed: the folder of installed packages; this Python's when None.

    Raises:
        DataError: there is nothing to train on, or nothing held out.
    """
    installed = Path(sysconfig.get_paths()["purelib"]) if installed is None else installed
    train: list[Document] = []
    held: dict[str, list[Document]] = {"files": [], "packages": []}
    seen: set[bytes] = set()
    read = {"train": 0, "packages": 0}
    for documents in _packages(library, installed):
        taken = 0
        for document in documents:
            mark = hashlib.sha256(" ".join(document.text.split()).encode()).digest()
            if mark in seen or not _is_prose_or_code(document):
                continue
            seen.add(mark)
            side = _side(document)
            if taken >= package_limit and document.package != LIBRARY:
                break
            if read.get(side, 0) >= limit:
                continue
            taken += len(document.text)
            if side in read:
                read[side] += len(document.text)
            (train if side == "train" else held[side]).append(document)
    known = {mark for document in train for mark in _lines(document.text)}
    learned = {document.package for document in train}
    held["files"] = [document for document in held["files"] if document.package in learned]
    kept = {side: [d for d in documents if not _is_known(d, known)] for side, documents in held.items()}
    if not train or not kept["files"]:
        raise DataError("Found too few Python sources to train on some and hold out others; use a whole Python.")
    dropped = sum(map(len, held.values())) - sum(map(len, kept.values()))
    return Sources(train=tuple(train), files=tuple(kept["files"]), packages=tuple(kept["packages"]), left_out=dropped)


def _side(document: Document) -> str:
    if document.package != LIBRARY and is_held_out(f"package {document.package}"):
        return "packages"
    return "files" if is_held_out(document.name) else "train"


def _packages(library: Path | None, installed: Path) -> Iterator[Iterable[Document]]:
    """The documents of each package: the standard library's first, the others in the order of a hash of the name."""
    yield (Document(name=name, package=LIBRARY, text=text) for name, text in library_sources(library))
    names = [place.name for place in installed.glob("*") if (place / "__init__.py").is_file()]
    for name in sorted(names, key=_order):
        if name not in ("lazyneuron", "tests", "test"):
            yield _package(installed, name)


def _package(installed: Path, name: str) -> list[Document]:
    found = [
        Document(name=f"{name}/{file}", package=name, text=text)
        for file, text in library_sources(installed / name)
        if not _SKIPPED.intersection(file.split("/"))
    ]
    return sorted(found, key=lambda document: _order(document.name))


def _order(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _is_prose_or_code(document: Document) -> bool:
    text = document.text
    if not 200 <= len(text) <= _LONGEST or _TABLES.search(document.name) or not text.isascii():
        return False
    return len(_PLAIN.findall(text)) >= _LEAST_PLAIN * len(text)


def _lines(text: str) -> set[int]:
    """Hashes of the lines that are long enough to be telling."""
    stripped = (line.strip() for line in text.splitlines())
    return {hash(line) for line in stripped if len(line) >= _TELLING}


def _is_known(document: Document, known: set[int]) -> bool:
    lines = _lines(document.text)
    return len(lines & known) > _MOST_SHARED * len(lines)


def packages_of(documents: Sequence[Document]) -> dict[str, int]:
    """Characters of each package, the largest first."""
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document.package] = sizes.get(document.package, 0) + len(document.text)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))
