"""Tensors of which each process writes its pieces and reads what it needs, through torch.distributed.checkpoint.

The pieces lie in sealed safetensors files, and where each belongs is JSON in the document: nothing is pickled.
Importing this file imports torch.distributed.checkpoint.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from lazyneuron.core.ranks import is_distributed, rank
from lazyneuron.core.sealed import seal
from lazyneuron.core.tensor_part import Tensors, write_part

State = tuple[Any, Tensors]  # as train.tree.encode takes one apart


def save_shards(folder: Path, document: str, *, shared: State, own: State) -> None:
    """Write what all processes hold together and what each has for itself; the document follows when all are done.

    Args:
        folder: made if it is missing.
        document: name of the JSON file that makes the folder count.
        shared: its tensors are sharded, or the same in every process; each piece is written once.
        own: written for each process.

    Raises:
        Exception: what the first process that failed met; every process raises it.
    """
    writer = _Writer(folder, document, text=shared[0], own=own)
    with _first_failure():
        save(dict(shared[1]), storage_writer=writer)


def load_shards(folder: Path, metadata: Metadata, *, into: dict[str, Tensor], whole: Tensors) -> None:
    """Fill tensors, sharded or not, with the pieces that overlap what this process holds of them.

    Args:
        folder: the saved step.
        metadata: from :func:`metadata_of` or :func:`metadata_of_whole`.
        into: targets by the names that the tensors were saved by.
        whole: tensors that are in memory already.

    Raises:
        Exception: what the first process that failed met; every process raises it.
    """
    reader = _Reader(folder, metadata, whole)
    with _first_failure(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process may read for itself
        load(into, storage_reader=reader, no_dist=not is_distributed())


def metadata_of(layout: Mapping[str, Any]) -> Metadata:
    """Where the pieces of each tensor are, from the document.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, RuntimeError: it is damaged.
    """
    found: dict[str, Any] = {}
    places: dict[MetadataIndex, tuple[str, str]] = {}
    for name, facts in layout.items():
        dtype, shape = getattr(torch, facts["dtype"]), torch.Size(facts["shape"])
        chunks = []
        for offsets, sizes, file, key in facts["pieces"]:
            if Path(file).name != file or not len(offsets) == len(sizes) == len(shape):
                raise ValueError(f"{file!r} is no file of pieces of {name!r}")
            chunks.append(ChunkStorageMetadata(offsets=torch.Size(offsets), sizes=torch.Size(sizes)))
            places[MetadataIndex(name, offsets)] = (file, key)
        if not isinstance(dtype, torch.dtype) or sum(math.prod(c.sizes) for c in chunks) != math.prod(shape):
            raise ValueError(f"the pieces of {name!r} do not make a tensor")
        found[name] = TensorStorageMetadata(properties=TensorProperties(dtype=dtype), size=shape, chunks=chunks)
    return Metadata(state_dict_metadata=found, storage_data=places)


def metadata_of_whole(tensors: Tensors) -> Metadata:
    """Where tensors are of which each is one piece, in memory."""
    return metadata_of(
        {
            name: {
                "dtype": _name_of(value.dtype),
                "shape": list(value.shape),
                "pieces": [[[0] * value.ndim, list(value.shape), "", name]],
            }
            for name, value in tensors.items()
        }
    )


class _Writer(StorageWriter):
    """Writes a file of pieces and one of its own state in each process, and the document in the first one."""

    def __init__(self, folder: Path, document: str, *, text: Any, own: State) -> None:
        self.folder, self.document, self.text, self.own = folder, document, text, own

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *_: Any, **__: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        pieces: dict[str, Tensor] = {}
        for number, item in enumerate(plan.items):
            data = planner.resolve_data(item)
            assert isinstance(data, Tensor)
            pieces[f"p{number}"] = data.detach().cpu()
        parts = {f"rank-{rank()}": write_part(self.folder, f"rank-{rank()}", self.own[1])}
        if pieces:
            parts[f"pieces-{rank()}"] = write_part(self.folder, f"pieces-{rank()}", pieces)
        places = {key: item.index for key, item in zip(pieces, plan.items, strict=True)}
        mine = {"text": self.own[0], "parts": parts, "places": places}
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(index=MetadataIndex(f"rank-{rank()}"), size_in_bytes=0, storage_data=mine)])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        of_ranks = [result.storage_data for (result,) in results]
        stored = {
            index: (of_rank["parts"][f"pieces-{number}"]["file"], key)
            for number, of_rank in enumerate(of_ranks)
            for key, index in of_rank["places"].items()
        }
        texts = {f"rank-{number}": of_rank["text"] for number, of_rank in enumerate(of_ranks)}
        parts = {name: part for of_rank in of_ranks for name, part in of_rank["parts"].items()}
        content = {"shared": self.text, **texts, "pieces": _layout_of(metadata, stored)}
        seal(self.folder, self.document, content, parts)


def _layout_of(metadata: Metadata, stored: Mapping[MetadataIndex, tuple[str, str]]) -> dict[str, Any]:
    layout = {}
    for name, facts in metadata.state_dict_metadata.items():
        assert isinstance(facts, TensorStorageMetadata)
        pieces = [[list(c.offsets), list(c.sizes), *stored[MetadataIndex(name, c.offsets)]] for c in facts.chunks]
        layout[name] = {"dtype": _name_of(facts.properties.dtype), "shape": list(facts.size), "pieces": pieces}
    return layout


class _Reader(StorageReader):
    """Reads slices of pieces, from files or from memory."""

    def __init__(self, folder: Path, metadata: Metadata, whole: Tensors) -> None:
        self.folder, self.metadata, self.whole = folder, metadata, whole

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self) -> Metadata:  # type: ignore[override]  # with **kwargs torch would ask each rank for its own
        return self.metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None:  # type: ignore[override]
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        wanted: dict[str, list[tuple[str, ReadItem]]] = {}
        for item in plan.items:
            file, key = self.metadata.storage_data[item.storage_index]
            wanted.setdefault(file, []).append((key, item))
        for file, items in wanted.items():
            with self._opened(file) as slice_of:
                for key, item in items:
                    target = planner.resolve_tensor(item).detach()
                    ends = [start + length for start, length in zip(item.storage_offsets, item.lengths, strict=True)]
                    target.copy_(slice_of(key)[tuple(map(slice, item.storage_offsets, ends))])
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @contextmanager
    def _opened(self, file: str) -> Iterator[Any]:
        if not file:
            yield self.whole.__getitem__
            return
        with safe_open(self.folder / file, framework="pt") as pieces:
            yield pieces.get_slice


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def _first_failure() -> Iterator[None]:
    """Raise what a process met instead of torch's collection of all of them."""
    try:
        yield
    except CheckpointException as error:
        met = next(iter(error.failures.values()))[0]
        raise met from None
