"""Bucket tables in files: tensors in safetensors, facts in JSON, never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import MALFORMED, CheckpointError, ImplUnavailable, said
from lazyneuron.core.sealed import read_sealed, write_sealed
from lazyneuron.route.table import BucketTable

FACTS = "route.json"
_TENSORS = "route"
FORMAT = 1


def write_folder(folder: Path, *, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts of a kind; a kill at any moment leaves the old or the new ones.

    Raises:
        DataError: the folder cannot be written.
    """
    write_sealed(folder, FACTS, {"format": FORMAT, "kind": kind, **facts}, {_TENSORS: tensors})


def read_folder(folder: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`write_folder` wrote.

    Raises:
        CheckpointError: a file is missing, corrupt, of another kind or version.
    """
    facts, tensors = read_sealed(folder, FACTS, what=f"saved {kind}", unsealed=_TENSORS)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or facts.get("kind") != kind:
        raise CheckpointError(f"{folder} does not hold a saved {kind}; its facts are not those of a {kind}.")
    return tensors.get(_TENSORS, {}), facts


def table_tensors(table: BucketTable) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A table's vectors, and the facts that go with them."""
    capacity, shared = table.capacity, table.shared_rows
    facts = {"hashes": table.hashes, "capacity": capacity, "on_full": table.on_full, "shared_rows": shared}
    return {"vectors": table.vectors.clone()}, facts


def table_from(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, impl: str = "auto") -> BucketTable:
    """The table that :func:`table_tensors` took apart.

    Raises:
        CheckpointError: the vectors are not those of a table: another type, another length, or one twice.
    """
    try:
        vectors, shared = tensors["vectors"], int(facts["shared_rows"])
        table = BucketTable(int(facts["hashes"]), capacity=int(facts["capacity"]), on_full=facts["on_full"], impl=impl)
        table.reserve(min(len(vectors), table.capacity))
        slots = table.add(vectors)
        full = table.on_full == "share" and len(table) == table.capacity
        if not 0 <= shared <= (torch.iinfo(torch.int64).max if full else 0):
            raise ValueError(f"{shared} rows cannot have shared a slot")
        if not torch.equal(slots, torch.arange(len(vectors))):
            raise ValueError("it names one bucket twice")
        table.shared_rows = shared
    except ImplUnavailable:
        raise
    except MALFORMED as error:
        raise CheckpointError(f"The saved table is damaged ({said(error)}); save it again.") from error
    return table


def save_table(table: BucketTable, folder: str | Path) -> None:
    """Write a table into a folder.

    Raises:
        DataError: the folder cannot be written.
    """
    tensors, facts = table_tensors(table)
    write_folder(Path(folder), kind="bucket table", tensors=tensors, facts=facts)


def load_table(folder: str | Path, *, impl: str = "auto") -> BucketTable:
    """The table that :func:`save_table` wrote, with the same slots.

    Raises:
        CheckpointError: a file is missing, corrupt or foreign.
    """
    return table_from(*read_folder(Path(folder), kind="bucket table"), impl=impl)
