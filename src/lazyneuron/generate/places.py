"""Where the tensors of a model lie in a folder's files: in one piece each, or in pieces that the model holds as one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.errors import CheckpointError
from lazyneuron.core.tensor_file import TensorFile, in_own_pages

Piece = tuple[TensorFile, str]  # the file, and the name there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Of one tensor.

    Attributes:
        pieces: one piece, which is the tensor; of stacked ones [entry of the first axis][one below the other].
        stacked: whether the pieces are matrices, of which each list makes one entry of the tensor's first axis.
    """

    pieces: tuple[tuple[Piece, ...], ...]
    stacked: bool = False

    @classmethod
    def whole(cls, file: TensorFile, stored: str) -> Place:
        """Of a tensor that is stored in one piece."""
        return cls(pieces=(((file, stored),),))

    @property
    def dtype(self) -> torch.dtype:
        """As it is stored."""
        file, stored = self.pieces[0][0]
        return file.stored[stored].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor; pieces that do not fit together give a shape that no tensor has."""
        shapes = [[file.stored[stored].shape for file, stored in entry] for entry in self.pieces]
        if not self.stacked:
            return shapes[0][0]
        fits = all(entry == shapes[0] for entry in shapes) and len({shape[1:] for shape in shapes[0]}) == 1
        return (len(shapes), sum(shape[0] for shape in shapes[0]), *shapes[0][0][1:]) if fits else (-1,)

    def read(self, dtype: torch.dtype, *, fleeting: bool) -> Tensor:
        """The tensor in a dtype; see :meth:`Weights.read`.

        Raises:
            CheckpointError: its file cannot be read any more.
        """
        if not self.stacked:
            return _read(self.pieces[0][0], dtype, fleeting=fleeting)
        found = in_own_pages(self.shape, dtype) if fleeting else torch.empty(self.shape, dtype=dtype)
        for entry, pieces in zip(found, self.pieces, strict=True):
            row = 0
            for piece in pieces:
                read = _read(piece, dtype, fleeting=True)
                entry[row : row + len(read)] = read
                row += len(read)
        return found


def _read(piece: Piece, dtype: torch.dtype, *, fleeting: bool) -> Tensor:
    file, stored = piece
    kept = file.stored[stored]
    tensor = file.read(stored, into=in_own_pages(kept.shape, kept.dtype) if fleeting else None)
    if not fleeting or dtype == tensor.dtype:
        return tensor.to(dtype)
    return in_own_pages(kept.shape, dtype).copy_(tensor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Tensors in files, by the names that a model gives them.

    Attributes:
        places: name in the model -> where it lies.
        dtypes: name in the model -> dtype that it gets; None keeps what is stored.
    """

    places: Mapping[str, Place]
    dtypes: Mapping[str, torch.dtype] | None = None

    def read(self, name: str, *, fleeting: bool = False) -> Tensor:
        """One tensor, with the dtype that the model gives it.

        Args:
            name: in the model.
            fleeting: in pages of its own, which the system has back as soon as the tensor is let go.

        Raises:
            CheckpointError: its file cannot be read any more.
        """
        place = self.places[name]
        return place.read(place.dtype if self.dtypes is None else self.dtypes[name], fleeting=fleeting)


def match(model: nn.Module, files: Mapping[str, TensorFile]) -> tuple[Weights, list[str], list[str]]:
    """Which stored tensor is which of the model's, as transformers names them: as they are, by the base's prefix, or
    as it renames and stacks what checkpoints name and cut otherwise, such as the experts of a mixture.

    Returns:
        The weights, the model's tensors that are not stored, and stored tensors that are not the model's.

    Raises:
        CheckpointError: an expert lacks a matrix.
    """
    own = {**dict(model.named_parameters(remove_duplicate=False)), **_kept_buffers(model)}
    prefix = str(getattr(model, "base_model_prefix", ""))
    places, foreign = {}, []
    for stored, file in files.items():
        names = (stored, f"{prefix}.{stored}", stored.removeprefix(f"{prefix}."))
        name = next((name for name in names if name in own), None)
        if name is None:
            foreign.append(stored)
        else:
            places[name] = Place.whole(file, stored)
    if foreign:
        more, foreign = _converted(model, {name: files[name] for name in foreign}, own)
        places = more | places
    held = {id(own[name]) for name in places}
    missing = [name for name, tensor in own.items() if id(tensor) not in held and isinstance(tensor, nn.Parameter)]
    return Weights(places=places, dtypes={name: own[name].dtype for name in places}), missing, foreign


def _kept_buffers(model: nn.Module) -> dict[str, Tensor]:
    keys = set(model.state_dict(keep_vars=True))
    return {name: buffer for name, buffer in model.named_buffers(remove_duplicate=False) if name in keys}


def _converted(
    model: Any, files: Mapping[str, TensorFile], own: dict[str, Tensor]
) -> tuple[dict[str, Place], list[str]]:
    """Places of what transformers renames or stacks while it loads this model, and the stored tensors that are left."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
    except ImportError:  # another version of transformers, which reads these folders itself
        return {}, list(files)
    steps = get_model_conversion_mapping(model)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    stacks = [step for step in steps if isinstance(step, WeightConverter) and _stacks(step)]
    others = [step for step in steps if isinstance(step, WeightConverter) and not _stacks(step)]
    places: dict[str, Place] = {}
    pieces: dict[str, dict[str, list[Piece]]] = {}
    for stored in sorted(files, key=_natural):
        name, pattern = rename_source_key(stored, renamings, [*stacks, *others], model.base_model_prefix, own)
        if name in own and pattern is None:
            places[name] = Place.whole(files[stored], stored)
        elif name in own and any(pattern in step.source_patterns for step in stacks):
            pieces.setdefault(name, {}).setdefault(str(pattern), []).append((files[stored], stored))
    for step in stacks:
        for name, found in pieces.items():
            if found.keys() <= set(step.source_patterns):
                rows = {pattern: found.get(pattern, []) for pattern in step.source_patterns}
                _check_even(name, rows)
                places[name] = Place(pieces=tuple(zip(*rows.values(), strict=True)), stacked=True)
    used = {stored for place in places.values() for entry in place.pieces for _, stored in entry}
    return places, [stored for stored in files if stored not in used]


def _check_even(name: str, rows: Mapping[str, Sequence[Piece]]) -> None:
    counts = {pattern.strip("."): len(row) for pattern, row in rows.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{count} of {pattern}" for pattern, count in counts.items())
        raise CheckpointError(
            f"{name} is made of equally many pieces of each kind, the files hold {said}; copy them again."
        )


def _stacks(step: Any) -> bool:
    """Does this step of transformers stack matrices along a new first axis, each perhaps of several, joined by rows?"""
    done = [(type(operation).__name__, getattr(operation, "dim", None)) for operation in step.operations]
    several = len(step.source_patterns) > 1
    return done == [("MergeModulelist", 0), *([("Concatenate", 1)] if several else [])]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in names by their value."""
    parts: Iterable[str] = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
