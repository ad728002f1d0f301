"""Tables of numbers from CSV, NPZ and Parquet files, a batch at a time."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.errors import DataError, ImplUnavailable

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".csv", ".npz", ".parquet")
BATCH = 1 << 16


def read_rows(path: Path, *, target: str | None) -> Iterator[tuple[Any, Any]]:
    """Batches of rows and targets.

    Args:
        path: ``.csv`` with a line of column names, ``.parquet``, or ``.npz`` with one-dimensional columns; an ``.npz``
        may
            also hold a matrix ``x`` and the target under its own name.
        target: column that is to be predicted; None when there is none.

    Yields:
        (rows, features) float64 and (rows,), or None without a target.

    Raises:
        DataError: the file is missing, empty, or not of its kind, a value is no number, or there is no such column.
        ImplUnavailable: a Parquet file, and pyarrow is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is none of {', '.join(SUFFIXES)}; convert it.")
    if not path.is_file():
        raise DataError(f"There is no file {path}; pass {', '.join(SUFFIXES)}.")
    read = {".csv": _csv, ".npz": _npz, ".parquet": _parquet}[path.suffix]
    some = False
    for batch in read(path, target):
        some = True
        yield batch
    if not some:
        raise DataError(f"{path} has no row; pass one that has.")


def _split(columns: dict[str, Any], path: Path, target: str | None) -> tuple[Any, Any]:
    import numpy as np

    if target is not None and target not in columns:
        raise DataError(f"{path} has no column {target!r}; it has {', '.join(list(columns)[:20])}.")
    y = None if target is None else columns[target]
    parts = [np.asarray(v) for name, v in columns.items() if name != target]
    if not parts:
        raise DataError(f"{path} has no column besides the target {target!r}; pass the features too.")
    try:
        parts = [v.astype(np.float64).reshape(len(v), -1) for v in parts]
        x = np.concatenate(parts, axis=1)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} has features that are no numbers, or columns of unlike length ({error}).") from error
    numbers = [x] if y is None or y.dtype.kind not in "fc" else [x, y]
    if not all(np.isfinite(part).all() for part in numbers):
        raise DataError(f"{path} holds NaN or infinity; leave these rows out, or fill them in.")
    return x, y


def _csv(path: Path, target: str | None) -> Iterator[tuple[Any, Any]]:
    import csv

    import numpy as np

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            names = next(lines, None)
            if not names:
                raise DataError(f"{path} is empty; its first line names the columns.")
            if len(set(names)) < len(names):
                raise DataError(f"{path} names a column twice ({', '.join(names[:20])}); rename one.")
            if target is not None and target not in names:
                raise DataError(f"{path} has no column {target!r}; it has {', '.join(names[:20])}.")
            number = 2
            while batch := list(itertools.islice(lines, BATCH)):
                if any(len(row) != len(names) for row in batch):
                    bad = next(k for k, row in enumerate(batch) if len(row) != len(names))
                    raise DataError(f"Line {number + bad} of {path} has {len(batch[bad])} values, not {len(names)}.")
                columns: dict[str, Any] = dict(zip(names, np.array(batch).T, strict=True))
                if target is not None:
                    columns[target] = _numbers_or_labels(columns[target])
                yield _split(columns, path, target)
                number += len(batch)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {path} ({error}); pass UTF-8 text with commas.") from error


def _numbers_or_labels(column: np.ndarray[Any, Any]) -> Any:
    try:
        return column.astype("float64")
    except ValueError:
        return column


def _npz(path: Path, target: str | None) -> Iterator[tuple[Any, Any]]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not an .npz file of plain arrays ({error}); save it again.") from error
    x, y = _split(columns, path, target)
    for a in range(0, len(x), BATCH):
        yield x[a : a + BATCH], None if y is None else y[a : a + BATCH]


def _parquet(path: Path, target: str | None) -> Iterator[tuple[Any, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImplUnavailable("Parquet files need pyarrow; run pip install 'lazyneuron[parquet]'.") from error
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=BATCH):
            yield _split(dict(zip(batch.schema.names, map(_array, batch.columns), strict=True)), path, target)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} is not a Parquet file ({error}); save it again.") from error


def _array(column: Any) -> Any:
    return column.to_numpy(zero_copy_only=False)
