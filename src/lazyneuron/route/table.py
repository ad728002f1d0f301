"""Buckets by name: every different vector of integers gets a slot of its own."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.ops.buckets.operators import native_ops, new_rows
from lazyneuron.ops.buckets.reference import first_seen

Policy = Literal["refuse", "share"]
_SMALLEST = 1024
_LARGEST = 1 << 31


class BucketTable:
    """Hash-consing of integer vectors: slots count up in the order in which vectors are first seen.

    Two different vectors never share a slot: a slot is found by its hash and confirmed by its whole vector. At capacity
    the table either refuses, or, with ``on_full="share"``, sends every further vector to the one slot
    ``capacity``, which is told apart from all others.

    Args:
        hashes: length of a vector.
        capacity: most slots; None means up to 2**31.
        on_full: what happens to a new vector when the table is full.
        impl: ``"auto"``, ``"native"`` or ``"python"``.

    Raises:
        ConfigError: a length or capacity below 1, or an unknown policy.
        ImplUnavailable: ``"native"`` is not built here.
    """

    def __init__(
        self, hashes: int, *, capacity: int | None = None, on_full: Policy = "refuse", impl: str = "auto"
    ) -> None:
        if hashes < 1 or hashes > 4096:
            raise ConfigError(f"A bucket is named by 1 to 4096 integers, got {hashes}.")
        if capacity is not None and not 1 <= capacity <= _LARGEST:
            raise ConfigError(f"A table holds 1 to 2**31 buckets, got a capacity of {capacity}.")
        check_choice("on_full", on_full, ("refuse", "share"))
        self.hashes = hashes
        self.capacity = _LARGEST if capacity is None else capacity
        self.on_full: Policy = on_full
        self.impl = impl
        self.shared_rows = 0
        self._ops = native_ops(impl)
        self._known: dict[bytes, int] = {}
        self._state = torch.zeros(1, dtype=torch.int64)
        room = min(_SMALLEST, self.capacity)
        self._keys = torch.empty(room, hashes, dtype=torch.int32)
        self._index = torch.zeros(2 * _SMALLEST, dtype=torch.int64)

    def __len__(self) -> int:
        """Slots in use, the shared one not counted."""
        return int(self._state[0])

    @property
    def vectors(self) -> Tensor:
        """(slots, hashes) int32: the vector of each slot."""
        return self._keys[: len(self)]

    @property
    def bytes(self) -> int:
        """Memory of vectors and index."""
        return 4 * self._keys.numel() + 8 * self._index.numel()

    @property
    def native(self) -> tuple[Tensor, Tensor] | None:
        """Index and vectors for fused operators, or None on the Python path or while rows share a slot."""
        return None if self._ops is None or self.shared_rows else (self._index, self._keys)

    def find(self, vectors: Tensor) -> Tensor:
        """The slots of vectors that are in the table.

        Args:
            vectors: (rows, hashes) int32.

        Returns:
            (rows,) int64; for an unknown vector -1, or the shared slot ``capacity`` once rows have shared it.
        """
        vectors = self._check(vectors)
        if self._ops is not None:
            slots: Tensor = self._ops.bucket_find(vectors, self._index, self._keys, len(self))
        else:
            distinct, inverse = first_seen(vectors)
            found = [self._known.get(row.tobytes(), -1) for row in distinct]
            slots = torch.tensor(found, dtype=torch.int64)[torch.from_numpy(inverse)]
        return torch.where(slots < 0, self.capacity, slots) if self.shared_rows else slots

    def add(self, vectors: Tensor) -> Tensor:
        """The slots of vectors; those that are new get the next ones.

        Args:
            vectors: (rows, hashes) int32.

        Returns:
            (rows,) int64.

        Raises:
            DataError: the table is full and refuses; the vectors before the one without room stay in it.
            ShapeError: the vectors are not of the table's kind.
        """
        vectors = self._check(vectors)
        slots = torch.empty(len(vectors), dtype=torch.int64)
        return self._add_native(vectors, slots) if self._ops is not None else self._add_python(vectors)

    def _add_native(self, vectors: Tensor, slots: Tensor) -> Tensor:
        done = 0
        while True:
            done = self._ops.bucket_insert(vectors, self._index, self._keys, self._state, slots, done)
            if done == len(vectors):
                return slots
            if len(self) >= self.capacity:
                return torch.cat([slots[:done], self._overflow(vectors[done:])])
            self.reserve(min(self.capacity, 2 * len(self._keys)))

    def _add_python(self, vectors: Tensor) -> Tensor:
        distinct, inverse = first_seen(vectors)
        found = []
        for row in distinct:
            name = row.tobytes()
            slot = self._known.get(name)
            if slot is None:
                slot = len(self)
                if slot >= self.capacity:
                    self._refuse()
                    slot = self.capacity
                else:
                    if slot == len(self._keys):
                        self.reserve(min(self.capacity, 2 * slot))
                    self._known[name] = slot
                    self._keys[slot] = torch.from_numpy(row)
                    self._state += 1
            found.append(slot)
        slots = torch.tensor(found, dtype=torch.int64)[torch.from_numpy(inverse)]
        self.shared_rows += int((slots == self.capacity).sum())
        return slots

    def _overflow(self, vectors: Tensor) -> Tensor:
        self._refuse()
        slots: Tensor = self._ops.bucket_find(vectors, self._index, self._keys, len(self))
        self.shared_rows += int((slots < 0).sum())
        return torch.where(slots < 0, self.capacity, slots)

    def _refuse(self) -> None:
        if self.on_full == "refuse":
            raise DataError(
                f"The table is full with {self.capacity} buckets; raise its capacity, use wider buckets, "
                "or let further buckets share one slot (on_full='share')."
            )

    def reserve(self, slots: int) -> None:
        """Make room for so many slots at once, instead of in steps."""
        if slots <= len(self._keys):
            return
        keys = new_rows(slots, self.hashes, dtype=torch.int32, ops=self._ops)
        keys[: len(self)] = self.vectors
        self._keys = keys
        if self._ops is not None:
            entries = max(2 * _SMALLEST, 1 << (2 * slots - 1).bit_length())
            if entries > self._index.numel():
                self._index = new_rows(entries, dtype=torch.int64, ops=self._ops)
            self._ops.bucket_rehash(self._index, self._keys, len(self))

    def merge(self, other: BucketTable) -> Tensor:
        """Add the other table's vectors.

        Args:
            other: a table of vectors as long as this one's.

        Returns:
            (slots of the other,) int64: where each of its slots is here.

        Raises:
            ConfigError: either table's rows have shared a slot, so that its vectors are not known.
        """
        if self.shared_rows or other.shared_rows:
            raise ConfigError("A table whose rows have shared a slot cannot be merged; give it a larger capacity.")
        return self.add(other.vectors)

    def _check(self, vectors: Tensor) -> Tensor:
        if vectors.dtype != torch.int32 or vectors.ndim != 2 or vectors.shape[1] != self.hashes:
            raise ShapeError(
                f"Bucket vectors are int32 of shape (rows, {self.hashes}), got {vectors.dtype} of shape "
                f"{tuple(vectors.shape)}."
            )
        return vectors.detach().cpu().contiguous()

    def __getstate__(self) -> dict[str, Any]:
        """For ``copy`` and for scikit-learn's clones across processes: vectors only, the index is made anew."""
        kept = ("hashes", "capacity", "on_full", "impl", "shared_rows")
        return {**{name: getattr(self, name) for name in kept}, "vectors": self.vectors.clone()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vectors, shared = state.pop("vectors"), state.pop("shared_rows")
        self.__init__(state.pop("hashes"), **state)  # type: ignore[misc]
        self.reserve(len(vectors))
        self.add(vectors)
        self.shared_rows = shared
