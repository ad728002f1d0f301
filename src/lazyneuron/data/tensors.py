"""Tensors from NumPy's files and safetensors."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from lazyneuron.core.errors import DataError
from lazyneuron.data.lines import unreadable

if TYPE_CHECKING:
    from torch import Tensor

TENSOR_SUFFIXES = (".npy", ".npz", ".safetensors")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file by name; the one of an ``.npy`` has the name ``""``.

    Raises:
        DataError: the file is missing, empty, damaged, or holds something else than plain numbers.
    """
    from safetensors import SafetensorError

    try:
        if path.is_file() and not path.stat().st_size:
            raise DataError(f"{path} is empty; at least one example is needed.")
        return _read(path)
    except (TypeError, AttributeError, EOFError, SafetensorError, zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a {path.suffix} file of plain numbers ({error}); save it again.") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _read(path: Path) -> dict[str, Tensor]:
    import numpy as np
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path)
    found = np.load(path, allow_pickle=False)
    if path.suffix == ".npy":
        return {"": torch.from_numpy(found)}
    with found as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
