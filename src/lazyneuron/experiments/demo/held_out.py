"""Evaluating a model on the held-out lines: what fires, and what its embeddings are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.experiments.demo.distillation import Network
from lazyneuron.experiments.demo.encoder import by_length, padded, sentence_embedding
from lazyneuron.experiments.demo.quality import Quality, quality
from lazyneuron.measure import SparsityReport, measure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One state of a model.

    Attributes:
        label: what state it is.
        sparsity: what fires, over real tokens.
        quality: agreement with the original's embeddings.
        embeddings: (lines, width).
    """

    label: str
    sparsity: SparsityReport
    quality: Quality
    embeddings: Tensor

    def to_point(self) -> dict[str, Any]:
        """This state as a point of the frontier."""
        return {
            "label": self.label,
            "density": self.sparsity.density,
            "mean_cosine": self.quality.mean_cosine,
            "top1_agreement": self.quality.top1_agreement,
        }


class HeldOut:
    """The held-out lines and the original's embeddings of them.

    Attributes:
        ids: token ids of each line.
        batches: the lines in batches of similar length.
        reference: the original's embeddings, once :meth:`evaluate` has seen it.
    """

    def __init__(self, ids: Sequence[Sequence[int]], *, tokens: int = 2048) -> None:
        self.ids = ids
        self.groups = by_length(ids, tokens=tokens)
        self.batches = [padded([ids[i] for i in group]) for group in self.groups]
        self.reference: Tensor | None = None

    def evaluate(self, network: Network, *, label: str, advance: Callable[[float], None] | None = None) -> Evaluation:
        """Run the lines through a model; the first model evaluated is the reference.

        Args:
            network: an encoder that returns ``last_hidden_state``, and its blocks.
            label: the state's name.
            advance: told the share that is done.
        """
        rows: list[Tensor] = []

        def catch(_: nn.Module, __: Any, kwargs: Any, output: Any) -> None:
            rows.append(sentence_embedding(output.last_hidden_state, kwargs["attention_mask"]))
            if advance is not None:
                advance(len(rows) / len(self.batches))

        handle = network.model.register_forward_hook(catch, with_kwargs=True)
        try:
            sparsity = measure(network.model, self.batches, blocks=network.blocks)
        finally:
            handle.remove()
        embeddings = torch.empty(len(self.ids), rows[0].shape[-1])
        for group, embedded in zip(self.groups, rows, strict=True):
            embeddings[group] = embedded
        if self.reference is None:
            self.reference = embeddings
        agreement = quality(embeddings, self.reference)
        return Evaluation(label=label, sparsity=sparsity, quality=agreement, embeddings=embeddings)

    @torch.no_grad()
    def largest_difference(self, one: nn.Module, other: nn.Module) -> float:
        """Largest absolute difference of two models' outputs at the real tokens."""
        largest = 0.0
        for batch in self.batches:
            real = batch["attention_mask"].bool()
            gap = (one(**batch).last_hidden_state - other(**batch).last_hidden_state)[real].abs().max()
            largest = max(largest, float(gap))
        return largest
