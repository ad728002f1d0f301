"""One tensor file of a saved folder, called by its content, so that writing anew never touches one that is in use."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from lazyneuron.core.record import to_disk

_CHUNK = 1 << 22
Tensors = Mapping[str, Tensor]


def write_part(folder: Path, stem: str, tensors: Tensors) -> dict[str, str]:
    """Write one tensor file, through to the disk, without replacing any that is in use.

    Returns:
        What :func:`lazyneuron.core.sealed.seal` has to be given: its name and its checksum.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    temporary = folder / f"{stem}.{uuid.uuid4().hex}.part"
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode & 0o777
        safetensors.torch.save_file(_apart(tensors), temporary)
        temporary.chmod(mode)  # the format's own writer lets nobody else read it, whatever the user's umask
        to_disk(temporary)
        checksum = sha256(temporary)
        name = f"{stem}-{checksum[:16]}.safetensors"
        os.replace(temporary, folder / name)
        to_disk(folder)
    finally:
        temporary.unlink(missing_ok=True)
    return {"file": name, "sha256": checksum}


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _apart(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors in a form that the format takes: contiguous, and no two in one storage."""
    held, storages = {}, set()
    for key, tensor in tensors.items():
        value = tensor.detach().contiguous()
        storage = value.untyped_storage().data_ptr()
        held[key] = value.clone() if storage in storages else value
        storages.add(storage)
    return held
