"""A model's forward with small changes added at chosen places."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import RandomState
from lazyneuron.blocks.recorder import recording
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import DataError

EMBEDDINGS = "input embeddings"


class Perturbed:
    """One batch, run again and again with changes that have a gradient.

    Attributes:
        batch: as it was given.
        key: the argument that is changed, :data:`EMBEDDINGS`, or None.
        deltas: the change at each place; zeros that appear in the first run.
        clean: what is there without a change.
        inner: places that hold a vector for each token.
    """

    def __init__(self, model: nn.Module, batch: Any, *, blocks: Sequence[MLPBlock], key: str | None) -> None:
        self.model, self.batch, self.key = model, batch, key
        self.blocks = blocks
        self.deltas: dict[str, Tensor] = {}
        self.clean: dict[str, Tensor] = {}
        self.inner = {EMBEDDINGS, *(block.name for block in blocks)}
        self._random = RandomState(model)

    def run(self) -> Any:
        """The model's output, with the same random numbers every time."""
        self._random.put_back()
        with contextlib.ExitStack() as stack:
            stack.enter_context(recording(self.blocks, entering=lambda b, x: self._plus(b.name, x), graph=True))
            if self.key == EMBEDDINGS:
                stack.callback(embedding_of(self.model).register_forward_hook(self._after).remove)
            return call_model(self.model, self._changed())

    def refuse_missing(self) -> None:
        """Make sure that every place was met.

        Raises:
            DataError: one was not.
        """
        missing = [name for name in (*(b.name for b in self.blocks), self.key) if name and name not in self.deltas]
        if missing:
            raise DataError(f"{missing[0]!r} did not take part in this forward; pass batches that run through it.")

    def _changed(self) -> Any:
        if self.key is None or self.key == EMBEDDINGS:
            return self.batch
        if isinstance(self.batch, Tensor):
            return self._plus(self.key, self.batch)
        if isinstance(self.batch, tuple):
            return (self._plus(self.key, self.batch[0]), *self.batch[1:])
        if self.key not in self.batch:
            raise DataError(f"A batch has no {self.key!r} to change; it has {', '.join(map(str, self.batch))}.")
        return {**self.batch, self.key: self._plus(self.key, self.batch[self.key])}

    def _plus(self, place: str, x: Tensor) -> Tensor:
        if place not in self.deltas:
            self.clean[place] = x.detach()
            self.deltas[place] = torch.zeros_like(x).requires_grad_()
        return x + self.deltas[place]

    def _after(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        return self._plus(EMBEDDINGS, output)


def input_of(model: nn.Module, batch: Any) -> str:
    """What of a batch can be changed by small amounts.

    Raises:
        DataError: nothing can.
    """
    if isinstance(batch, Mapping):
        for name, value in batch.items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1:
                return str(name)
    else:
        first = batch[0] if isinstance(batch, tuple) else batch
        if isinstance(first, Tensor) and first.is_floating_point():
            return "input"
    embedding_of(model)
    return EMBEDDINGS


def embedding_of(model: nn.Module) -> nn.Module:
    """The module that turns token numbers into vectors.

    Raises:
        DataError: the model has none.
    """
    ask = getattr(model, "get_input_embeddings", None)
    with contextlib.suppress(NotImplementedError, AttributeError):
        found = ask() if ask is not None else None
        if isinstance(found, nn.Module):
            return found
    first = next((m for m in model.modules() if isinstance(m, nn.Embedding)), None)
    if first is None:
        raise DataError("Neither the batch nor the model has anything real-valued to change; pass key=.")
    return first
