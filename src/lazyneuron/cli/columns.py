"""Columns and a target from a CSV or NPZ file."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lazyneuron.core.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """A table with a target.

    Attributes:
        x: shape (m, n).
        y: shape (m,).
        names: of the columns.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    names: tuple[str, ...]


def read_columns(path: Path, *, target: str | None) -> Columns:
    """Read a table.

    Args:
        path: ``.csv`` with a header and numbers, or ``.npz`` with arrays ``X`` (m, n) and ``y`` (m,).
        target: the target column of a CSV; the last by default.

    Raises:
        DataError: the file is missing, of another kind, empty, or holds something else than numbers.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}; name a .csv or .npz file.")
    if path.suffix == ".npz":
        return _from_npz(path, target)
    if path.suffix != ".csv":
        raise DataError(f"A table is a .csv or .npz file, got {path.name}; convert it.")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *body = list(csv.reader(file)) or [[]]
        values = np.array([[float(cell) for cell in row] for row in body if row])
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"{path.name} must hold a header and rows of as many numbers ({error}); encode other values."
        ) from error
    if values.ndim != 2 or values.shape[1] != len(header) or len(header) < 2:
        raise DataError(f"{path.name} must hold a header of at least two names and rows of as many numbers.")
    _check_finite(path, values)
    wanted = header[-1] if target is None else target
    if wanted not in header:
        raise DataError(f"{path.name} has no column {wanted!r}; it has {', '.join(header)}.")
    at = header.index(wanted)
    return Columns(x=np.delete(values, at, axis=1), y=values[:, at], names=tuple(h for h in header if h != wanted))


def _check_finite(path: Path, *arrays: npt.NDArray[np.float64]) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise DataError(f"{path.name} holds NaN or infinity; leave these rows out, or fill them in.")


def _from_npz(path: Path, target: str | None) -> Columns:
    if target is not None:
        raise DataError("--target names a column of a CSV file; an NPZ file holds the arrays X and y.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = arrays["X"], arrays["y"]
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path.name} must hold the arrays X and y ({error}); save it with numpy.savez.") from error
    if x.ndim != 2 or y.shape != (len(x),):
        raise DataError(f"X has shape (m, n) and y (m,), got {x.shape} and {y.shape} in {path.name}.")
    if x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
        raise DataError(f"X and y hold numbers, got {x.dtype} and {y.dtype} in {path.name}.")
    _check_finite(path, x, y)
    return Columns(x=x, y=y, names=tuple(f"x{i}" for i in range(x.shape[1])))
