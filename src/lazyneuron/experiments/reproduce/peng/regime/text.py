"""Python sources as bytes, kept in a folder: what a run was begun with it goes on with, whatever is installed later."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import MALFORMED, CheckpointError, said
from lazyneuron.core.sealed import read_sealed, write_sealed
from lazyneuron.experiments.reproduce.tiny_lm.sources import Document, packages_of, read_sources

VOCABULARY = 256
END = 0  # the byte before, between and after documents; the sources are ASCII and do not hold it
_DOCUMENT = "bytes.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bytes:
    """Two streams of bytes.

    Attributes:
        train, held_out: uint8 (bytes,); held out are other files of the packages that are learned from.
        facts: what was read, JSON-able.
    """

    train: Tensor
    held_out: Tensor
    facts: dict[str, Any]


def bytes_in(folder: Path, *, limit: int, package_limit: int, library: Path | None) -> Bytes:
    """The text that a folder keeps; read from this Python and kept when there is none.

    Args:
        folder: where it is kept.
        limit, package_limit, library: as for :func:`read_sources`.

    Raises:
        DataError: there is too little text, or the folder cannot be written.
        CheckpointError: what the folder keeps is damaged.
    """
    kept = read_bytes(folder)
    if kept is None:
        sources = read_sources(limit=limit, package_limit=package_limit, library=library)
        train, held_out = (_stream(documents) for documents in (sources.train, sources.files))
        facts = {
            "bytes": {"train": len(train), "held out": len(held_out)},
            "packages": packages_of(sources.train),
            "sha256": digest(train, held_out),
        }
        kept = Bytes(train=train, held_out=held_out, facts=facts)
        keep_bytes(kept, folder)
    return kept


def keep_bytes(text: Bytes, folder: Path) -> None:
    """Put a text into a folder, for :func:`read_bytes`; a kill leaves the old or the new one.

    Raises:
        DataError: the folder cannot be written.
    """
    write_sealed(folder, _DOCUMENT, text.facts, {"streams": {"train": text.train, "held_out": text.held_out}})


def read_bytes(folder: Path) -> Bytes | None:
    """What :func:`keep_bytes` has put into a folder; None when there is nothing.

    Raises:
        CheckpointError: a file is damaged.
    """
    if not (folder / _DOCUMENT).is_file():
        return None
    facts, tensors = read_sealed(folder, _DOCUMENT, what="text of bytes")
    try:
        text = Bytes(**tensors["streams"], facts=dict(facts))
        whole = text.train.dtype == text.held_out.dtype == torch.uint8
        whole = whole and text.facts["sha256"] == digest(text.train, text.held_out)
    except MALFORMED as error:
        raise CheckpointError(f"The text in {folder} is damaged ({said(error)}); remove the folder.") from error
    if not whole:
        raise CheckpointError(f"The text in {folder} is damaged: it holds other bytes; remove the folder.")
    return text


def digest(*streams: Tensor) -> str:
    """SHA-256 of streams of bytes, one after the other."""
    found = hashlib.sha256()
    for stream in streams:
        found.update(stream.numpy().data)
    return found.hexdigest()


def _stream(documents: Sequence[Document]) -> Tensor:
    shuffled = list(documents)
    random.Random(0).shuffle(shuffled)
    end = bytes([END])
    whole = end + end.join(document.text.encode("ascii") for document in shuffled) + end
    return torch.frombuffer(bytearray(whole), dtype=torch.uint8)
