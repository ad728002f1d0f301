"""One saved step as it lies on disk: read by one process or by each of several, as many as saved it or not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import MALFORMED, CheckpointError, said
from lazyneuron.core.ranks import is_distributed, processes, rank
from lazyneuron.core.sealed import read_sealed
from lazyneuron.core.tensor_part import Tensors
from lazyneuron.train.steps import DOCUMENT
from lazyneuron.train.tree import decode, encode


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedStep:
    """A checkpoint that was opened.

    Attributes:
        path: its folder.
        shared: what all processes hold together. Of tensors that are not in memory yet it has the shape and dtype.
        own: what this process is to have for itself.
    """

    path: Path
    shared: Any
    own: Mapping[str, Any]
    _written: Any
    _shapes: Tensors
    _whole: Tensors
    _layout: Any

    def load_shared(self, like: Mapping[int, Tensor]) -> Any:
        """What all processes hold together, with its tensors; under torch.distributed every process has to call.

        Args:
            like: by ``id`` of a tensor of :attr:`shared`, one that is sharded, and on the device, as it is to be.
        """
        if self._layout is None and not is_distributed():
            return self.shared
        from lazyneuron.train import shards

        whole = self._layout is None
        metadata = shards.metadata_of_whole(self._whole) if whole else shards.metadata_of(self._layout)
        into = {
            name: torch.empty_like(like[id(shape)].detach(), dtype=shape.dtype)
            if id(shape) in like
            else torch.empty(shape.shape, dtype=shape.dtype)
            for name, shape in self._shapes.items()
        }
        shards.load_shards(self.path, metadata, into=into, whole=self._whole)
        return decode(self._written, into)


def open_step(path: Path) -> SavedStep:
    """Check a checkpoint and read all of it but the tensors that processes wrote in pieces.

    Every file is compared with its checksum, by one process at least.

    Raises:
        CheckpointError: it is damaged.
    """
    name = f"rank-{rank()}"
    content, tensors = _read(path, "shared", name)
    try:
        saved = sum(key.startswith("rank-") for key in content)
        if saved == processes():
            own = decode(content[name], tensors[name])
        else:
            names = [f"rank-{number}" for number in range(saved)]
            _, of_all = _read(path, *names)
            own = state_elsewhere([decode(content[n], of_all[n]) for n in names])
        layout, whole = content.get("pieces"), tensors.get("shared", {})
        shapes = whole if layout is None else {key: _shape(facts) for key, facts in layout.items()}
        return SavedStep(
            path=path,
            shared=decode(content["shared"], shapes),
            own=own,
            _written=content["shared"],
            _shapes=shapes,
            _whole=whole,
            _layout=layout,
        )
    except CheckpointError:
        raise
    except MALFORMED as error:
        raise CheckpointError(f"{path} lacks a state ({said(error)}); use an earlier checkpoint.") from error


def state_elsewhere(saved: list[dict[str, Any]]) -> dict[str, Any]:
    """What this process has for itself if another number of processes saved: parts are those of the first one.

    A random state that was the same in all of them stays so. One that differed begins anew, from a seed that follows
    from the first one's state and the number of this process.

    Args:
        saved: what each process had.
    """
    first = saved[0]
    generators = {key: _one_of([s["generators"][key] for s in saved]) for key in first["generators"]}
    return {**first, "generators": generators, "random": _one_of([s["random"] for s in saved])}


def _one_of(states: list[Any]) -> Any:
    marks = [_mark(state) for state in states]
    if len(set(marks)) == 1:
        return states[0]
    digest = hashlib.sha256(f"{marks[0]} {rank()} of {processes()}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _mark(state: Any) -> str:
    written, tensors = encode(state)
    digest = hashlib.sha256(json.dumps(written).encode())
    for value in tensors.values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, *names: str) -> tuple[Any, dict[str, dict[str, Tensor]]]:
    return read_sealed(path, DOCUMENT, what="training state", only=names, share=(rank(), processes()))


def _shape(facts: Mapping[str, Any]) -> Tensor:
    """A tensor of that shape and dtype that takes no memory."""
    return torch.zeros((), dtype=getattr(torch, facts["dtype"])).expand(facts["shape"])
