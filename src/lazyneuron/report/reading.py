"""Reading a record: of the right kind, with every figure that is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record


@contextlib.contextmanager
def read(record: Record, kind: str) -> Iterator[Mapping[str, Any]]:
    """The record's data; a figure that is missing or of the wrong type inside becomes one sentence.

    Args:
        record: the record.
        kind: the kind that it has to be of.

    Raises:
        DataError: it is of another kind, or lacks a figure.
    """
    if record.kind != kind:
        raise DataError(
            f"This is a record of kind {record.kind!r}, but one of kind {kind!r} is needed; pass another file."
        )
    try:
        yield record.data
    except KeyError as error:
        raise DataError(f"The {kind} record has no figure {error}; measure it again with this version.") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise DataError(f"The {kind} record cannot be shown ({error}); measure it again with this version.") from error
