"""A folder whose JSON names its tensor files and holds their checksums and its own; it is written last.

A tensor file is called by its content, so saving anew never touches one that is in use. Replacing the JSON is the one
moment at which the new content counts: a kill before it leaves the old content whole, a kill after it the new.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lazyneuron.core.document import open_text, seal_text
from lazyneuron.core.errors import MALFORMED, CheckpointError, DataError, LazyNeuronError, said
from lazyneuron.core.record import made_folder, write_bytes, write_text
from lazyneuron.core.tensor_file import TensorFile
from lazyneuron.core.tensor_part import Tensors, sha256, write_part

_HEX = "[0-9a-f]"
Found = TypeVar("Found")


def write_sealed(
    folder: Path,
    document: str,
    content: Any,
    tensors: Mapping[str, Tensors],
    *,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Save JSON content and tensors: at any moment the folder holds all of the old or all of the new ones.

    Args:
        folder: made if it is missing; its other files stay.
        document: name of the JSON file.
        content: JSON-able.
        tensors: for each tensor file, the beginning of its name and its tensors.
        beside: whole other files by name, such as a copy of a config for other programs; they are not sealed, and a
            kill (but no exception) may leave them new beside old content.

    Raises:
        DataError: the folder cannot be written.

    Cost: a pass of SHA-256 over the tensors, and waiting until they are on the disk.
    """
    beside = beside or {}
    replaced: dict[str, bytes] = {}
    try:
        with made_folder(folder), _alone(folder):
            before, text = set(os.listdir(folder)), _bytes(folder / document)
            try:
                parts = {stem: write_part(folder, stem, held) for stem, held in tensors.items()}
                for name, data in beside.items():
                    held = _bytes(folder / name)
                    if held != data:
                        replaced[name] = held
                        write_bytes(folder / name, data)
                seal(folder, document, content, parts)
            except BaseException:
                if _bytes(folder / document) == text:  # it does not count yet
                    for name in before & replaced.keys():
                        write_bytes(folder / name, replaced[name])
                    _sweep(folder, document, (*tensors, *beside), keep=before, also=set(beside))
                raise
    except LazyNeuronError:
        raise
    except (*MALFORMED, SafetensorError) as error:  # a full disk, or a tensor that the format does not know
        raise DataError(f"Cannot write to {folder} ({said(error)}); choose a folder that you can write.") from error


def seal(folder: Path, document: str, content: Any, parts: Mapping[str, Mapping[str, str]]) -> None:
    """Make parts that were written and JSON content count, and remove the files of what counted before.

    Raises:
        DataError: the folder cannot be written.
    """
    old = _named(folder, document, parts)
    write_text(folder / document, seal_text({"parts": parts, "content": content}))
    _sweep(folder, document, parts, keep={part["file"] for part in parts.values()}, also=old)


def read_sealed(
    folder: Path,
    document: str,
    *,
    what: str,
    only: tuple[str, ...] | None = None,
    unsealed: str | None = None,
    share: tuple[int, int] = (0, 1),
) -> tuple[Any, dict[str, dict[str, Tensor]]]:
    """What :func:`write_sealed` saved, after comparing every checksum.

    Args:
        folder: the folder.
        document: name of the JSON file.
        what: for the message, e.g. ``"saved model"``.
        only: the tensor files to load, by the beginning of their names; None loads all. All are checked.
        unsealed: beginning of the name of the one tensor file that earlier versions wrote beside such a document;
            None refuses their folders.
        share: number of this process and how many read the folder; each checks its share of what it does not load.

    Returns:
        The content, and the tensors of each file.

    Raises:
        CheckpointError: a file is missing, damaged or not the one that was saved.
    """
    return _unless_saved_anew(
        folder, document, what, lambda text: _read(folder, text, only, unsealed, share, load_file)
    )


def open_sealed(
    folder: Path, document: str, *, what: str, unsealed: str | None = None
) -> tuple[Any, dict[str, TensorFile]]:
    """As :func:`read_sealed`, but the tensors are read when they are asked for.

    Raises:
        CheckpointError: a file is missing, damaged or not the one that was saved.
    """
    return _unless_saved_anew(
        folder, document, what, lambda text: _read(folder, text, None, unsealed, (0, 1), TensorFile)
    )


def _unless_saved_anew(folder: Path, document: str, what: str, read: Callable[[bytes], Found]) -> Found:
    while True:
        seen = b""
        try:
            seen = (folder / document).read_bytes()
            return read(seen)
        except (*MALFORMED, SafetensorError) as error:
            if _bytes(folder / document) == seen:  # else it was saved anew in between
                raise CheckpointError(
                    f"{folder} does not hold a {what} ({said(error)}); name the folder that it was saved in, "
                    "or another copy of it."
                ) from error


def _read(
    folder: Path,
    text: bytes,
    only: tuple[str, ...] | None,
    unsealed: str | None,
    share: tuple[int, int],
    load: Callable[[Path], Found],
) -> tuple[Any, dict[str, Found]]:
    raw = json.loads(text)
    if unsealed is not None and not (isinstance(raw, dict) and "sealed" in raw):
        return raw, {unsealed: load(folder / f"{unsealed}.safetensors")}
    sealed = open_text(text)
    tensors = {}
    for number, (stem, part) in enumerate(sealed["parts"].items()):
        name, checksum = part["file"], part["sha256"]
        if name != f"{stem}-{checksum[:16]}.safetensors" or Path(name).name != name:
            raise ValueError(f"{name!r} is no name of a tensor file")
        loaded = only is None or stem in only
        if (loaded or number % share[1] == share[0]) and sha256(folder / name) != checksum:
            raise ValueError(f"{name} is not the file that was saved")
        if loaded:
            tensors[stem] = load(folder / name)
    return sealed["content"], tensors


def _sweep(folder: Path, document: str, stems: Iterable[str], *, keep: set[str], also: set[str]) -> None:
    """Remove the tensor files of these stems and what an interrupted saving left, but for what is kept."""
    stem = "|".join(map(re.escape, stems))
    debris = re.compile(rf"(?:{stem})-{_HEX}{{16}}\.safetensors|(?:{stem}|{re.escape(document)})\.{_HEX}{{32}}\.part")
    for name in os.listdir(folder):
        if name not in keep and (name in also or debris.fullmatch(name)):
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def _named(folder: Path, document: str, stems: Iterable[str]) -> set[str]:
    """The tensor files that go with the document as it is, as far as it can be read."""
    try:
        raw = json.loads((folder / document).read_bytes())
        if isinstance(raw, list) or raw.get("format") == 1:
            return {f"{stem}.safetensors" for stem in stems}
        return {Path(part["file"]).name for part in raw["sealed"]["parts"].values()}
    except MALFORMED:
        return set()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time publish into a folder; where the file system knows no locks, each has to see to it."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
