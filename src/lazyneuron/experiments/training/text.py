"""Text as token ids: Python's own standard library through a byte-level BPE that is trained on it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from lazyneuron.core.errors import DataError, ImplUnavailable
from lazyneuron.data import c4_documents
from lazyneuron.experiments.demo.corpus import is_held_out, library_sources

_END = "<|end|>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """A train and a held-out stream of token ids.

    Attributes:
        name: what the text is.
        train, held_out: int64 (tokens,), documents one after another with an end token between.
        vocabulary: how many ids there are.
    """

    name: str
    train: Tensor
    held_out: Tensor
    vocabulary: int


def tokenize(documents: Iterable[tuple[str, str]], *, name: str, vocabulary: int, limit: int = 12_000_000) -> Tokens:
    """Train a byte-level BPE on the training documents and encode all.

    Args:
        documents: name and text of each; one in eight is held out, by a hash of its name.
        name: what the text is.
        vocabulary: ids to make.
        limit: characters to read at most.

    Raises:
        ImplUnavailable: tokenizers is not installed.
        DataError: there are no documents on both sides of the split.
    """
    try:
        from tokenizers import ByteLevelBPETokenizer
    except ImportError as error:
        raise ImplUnavailable("The language experiments need tokenizers; run pip install 'lazyneuron[hf]'.") from error
    parts: dict[bool, list[str]] = {False: [], True: []}
    read = 0
    for file, text in documents:
        parts[is_held_out(file)].append(text)
        read += len(text)
        if read >= limit:
            break
    if not parts[False] or not parts[True]:
        raise DataError(f"{name} has too few documents to train on some and hold out others; pass more.")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(parts[False], vocab_size=vocabulary, special_tokens=[_END], show_progress=False)
    end = bpe.token_to_id(_END)

    def stream(texts: list[str]) -> Tensor:
        return torch.tensor([i for e in bpe.encode_batch(texts) for i in (*e.ids, end)], dtype=torch.long)

    return Tokens(name=name, train=stream(parts[False]), held_out=stream(parts[True]), vocabulary=bpe.get_vocab_size())


@functools.lru_cache(maxsize=2)
def text_tokens(data: Path | None, vocabulary: int) -> Tokens:
    """Text with a vocabulary of the given size; kept for the process.

    Args:
        data: a folder with C4's training shards, or of Python sources; the standard library when None.
        vocabulary: ids to make.

    Raises:
        DataError: there is no text.
    """
    if data is None:
        return tokenize(library_sources(), name="Python's standard library", vocabulary=vocabulary)
    shards = any(data.glob("c4-train.*"))
    documents = c4_documents(data) if shards else library_sources(data)
    return tokenize(documents, name="C4" if shards else data.name, vocabulary=vocabulary)
