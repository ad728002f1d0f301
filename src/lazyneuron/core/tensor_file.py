"""Reading a safetensors file a tensor at a time, into memory of its own: nothing is mapped, nothing is read twice."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import weakref
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lazyneuron.core.errors import MALFORMED, CheckpointError, said

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """Where a tensor lies in its file.

    Attributes:
        dtype: as it is stored.
        shape: of the tensor.
        start, stop: bytes of the file.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stop - self.start


class TensorFile:
    """A safetensors file, checked, whose tensors are read when they are asked for.

    The format's own reader maps the file, and what was touched counts as memory of the process until the file is
    closed; a model that is quantised while it is read must not hold its float weights that long.

    Args:
        path: the file.

    Attributes:
        path: the file.
        stored: its tensors by name.

    Raises:
        CheckpointError: the file is missing, truncated, not of this format, or holds numbers that torch does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="pt") as checked:  # sizes and offsets are sound
                names = list(checked.keys())
            self._file = os.open(path, os.O_RDONLY)  # kept, so that one saved anew meanwhile is still the one checked
            weakref.finalize(self, os.close, self._file)
            length = int.from_bytes(os.pread(self._file, 8, 0), "little")
            header = json.loads(os.pread(self._file, length, 8))
            self.stored = {name: _stored(header[name], 8 + length) for name in names}
        except (*MALFORMED, SafetensorError) as error:
            raise CheckpointError(
                f"{path} is no whole safetensors file ({said(error)}); copy or download it again."
            ) from error

    def read(self, name: str, *, into: Tensor | None = None) -> Tensor:
        """One tensor.

        Args:
            name: of the tensor.
            into: contiguous memory of its shape and dtype, which is written; None makes a new tensor.

        Raises:
            CheckpointError: the file ended early, or cannot be read any more.
        """
        stored = self.stored[name]
        tensor = torch.empty(stored.shape, dtype=stored.dtype) if into is None else into
        array: Any = tensor.detach().view(-1).view(torch.uint8).numpy() if tensor.numel() else b""
        data = memoryview(array)
        at = 0
        try:
            while at < len(data):
                got = os.preadv(self._file, [data[at:]], stored.start + at)  # at most 2 GiB at once
                if not got:
                    raise EOFError(f"it ends within {name}")
                at += got
        except (OSError, EOFError) as error:
            raise CheckpointError(
                f"{self.path} could not be read ({said(error)}); copy or download it again."
            ) from error
        return tensor

    def outlines(self) -> dict[str, Tensor]:
        """Tensors of the same shapes and dtypes on the meta device."""
        return {name: torch.empty(s.shape, dtype=s.dtype, device="meta") for name, s in self.stored.items()}


def in_own_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor whose memory goes back to the system with it.

    Allocators keep what is freed between other pieces: weights that are read, quantised and let go in turns would leave
    holes that together are a third of the quantised model (2026-11, glibc).
    """
    size = torch.Size(shape).numel() * dtype.itemsize
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(shape) if size else torch.empty(shape, dtype=dtype)


def _stored(entry: dict[str, Any], behind: int) -> Stored:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"its numbers are {entry['dtype']}, of {', '.join(_DTYPES)}")
    start, stop = entry["data_offsets"]
    return Stored(dtype=_DTYPES[entry["dtype"]], shape=tuple(entry["shape"]), start=behind + start, stop=behind + stop)
