"""Bucket tables in files: tensors in safetensors, facts in JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lazyneuron.core.errors import CheckpointError
from lazyneuron.core.record import write_bytes, write_text
from lazyneuron.route.table import BucketTable

TENSORS, FACTS = "route.safetensors", "route.json"
FORMAT = 1


def write_folder(folder: Path, *, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts of a kind; each file whole or not at all.

    Raises:
        DataError: the folder cannot be written.
    """
    held = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / TENSORS, safetensors.torch.save(held, metadata={"kind": kind}))
    write_text(folder / FACTS, json.dumps({"format": FORMAT, "kind": kind, **facts}, indent=1))


def read_folder(folder: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`write_folder` wrote.

    Raises:
        CheckpointError: a file is missing, corrupt, of another kind or version.
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if not isinstance(facts, dict) or facts.get("format") != FORMAT or facts.get("kind") != kind:
            raise ValueError(f"its facts are not those of a {kind}")
        return safetensors.torch.load((folder / TENSORS).read_bytes()), facts
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} does not hold a saved {kind} ({error}); pass a folder that it wrote."
        ) from error


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
        vectors = tensors["vectors"]
        table = BucketTable(int(facts["hashes"]), capacity=int(facts["capacity"]), on_full=facts["on_full"], impl=impl)
        table.reserve(min(len(vectors), table.capacity))
        slots = table.add(vectors)
        table.shared_rows = int(facts["shared_rows"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"The saved table is damaged ({error}); save it again.") from error
    if not torch.equal(slots, torch.arange(len(vectors))):
        raise CheckpointError("The saved table names one bucket twice, so it is damaged; save it again.")
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
