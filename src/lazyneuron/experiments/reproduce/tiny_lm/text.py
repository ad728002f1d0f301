"""The sources as token ids, by a byte-level BPE that is trained on the training documents; kept in a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import MALFORMED, CheckpointError, DataError, ImplUnavailable, said
from lazyneuron.core.sealed import read_sealed, write_sealed
from lazyneuron.experiments.reproduce.tiny_lm.sources import Document, Sources, packages_of

END = "<|end|>"
_DOCUMENT = "text.json"
_SIDES = ("train", "files", "packages")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """Streams of token ids; an end token stands before and between documents.

    Attributes:
        train, files, packages: int32 (tokens,); what they are is said in :class:`Sources`.
        tokenizer: of the tokenizers package, as JSON.
        facts: what was read, JSON-able.
    """

    train: Tensor
    files: Tensor
    packages: Tensor
    tokenizer: str
    facts: dict[str, Any]


def read_text(folder: Path) -> Text | None:
    """What :func:`keep_text` has put into a folder; None when there is nothing.

    Raises:
        CheckpointError: a file is damaged.
    """
    if not (folder / _DOCUMENT).is_file():
        return None
    content, tensors = read_sealed(folder, _DOCUMENT, what="text of tiny-lm")
    try:
        text = Text(**tensors["streams"], tokenizer=content["tokenizer"], facts=content["facts"])
        whole = text.train.dtype == text.files.dtype == text.packages.dtype == torch.int32
        whole &= isinstance(text.tokenizer, str) and isinstance(text.facts["vocabulary"], int)
    except MALFORMED as error:
        raise CheckpointError(f"The text in {folder} is damaged ({said(error)}); remove the folder.") from error
    if not whole:
        raise CheckpointError(f"The text in {folder} is damaged: it holds numbers of other kinds; remove the folder.")
    return text


def keep_text(text: Text, folder: Path) -> None:
    """Put a text into a folder, for :func:`read_text`; a kill leaves the old or the new one.

    Raises:
        DataError: the folder cannot be written.
    """
    streams = {side: getattr(text, side) for side in _SIDES}
    write_sealed(folder, _DOCUMENT, {"tokenizer": text.tokenizer, "facts": text.facts}, {"streams": streams})


def make_text(sources: Sources, *, vocabulary: int, seed: int = 0) -> Text:
    """Train the tokenizer on the training documents and encode all.

    Args:
        sources: what to encode; held-out documents do not decide the vocabulary.
        vocabulary: ids to make, the end token included.
        seed: of the order of the documents.

    Raises:
        ImplUnavailable: tokenizers is not installed.
        DataError: there is too little text for the vocabulary.
    """
    try:
        from tokenizers import ByteLevelBPETokenizer
    except ImportError as error:
        raise ImplUnavailable("tiny-lm needs tokenizers; run pip install 'lazyneuron[hf]'.") from error
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        (document.text for document in sources.train),
        vocab_size=vocabulary,
        special_tokens=[END],
        show_progress=False,
    )
    if bpe.get_vocab_size() != vocabulary:
        raise DataError(f"The text gives {bpe.get_vocab_size()} of {vocabulary} tokens; pass more text.")
    streams = {side: _stream(bpe, getattr(sources, side), seed) for side in _SIDES}
    facts = {
        "documents": {side: len(getattr(sources, side)) for side in streams},
        "characters": {side: sum(len(d.text) for d in getattr(sources, side)) for side in streams},
        "tokens": {side: len(stream) for side, stream in streams.items()},
        "packages": packages_of(sources.train),
        "held_out_packages": packages_of(sources.packages),
        "left_out": sources.left_out,
        "vocabulary": vocabulary,
        "sha256": hashlib.sha256(b"".join(s.numpy().tobytes() for s in streams.values())).hexdigest(),
    }
    return Text(**streams, tokenizer=bpe.to_str(), facts=facts)


def _stream(bpe: Any, documents: Sequence[Document], seed: int) -> Tensor:
    shuffled = list(documents)
    random.Random(seed).shuffle(shuffled)
    end = bpe.token_to_id(END)
    ids = [i for code in bpe.encode_batch([d.text for d in shuffled]) for i in (end, *code.ids)]
    return torch.tensor([*ids, end], dtype=torch.int32)


def tokenizer_of(text: Text) -> Any:
    """The tokenizer as transformers takes it.

    Raises:
        ImplUnavailable: transformers is not installed.
    """
    try:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise ImplUnavailable("tiny-lm needs transformers; run pip install 'lazyneuron[hf]'.") from error
    made: Any = Tokenizer.from_str(text.tokenizer)
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=made, bos_token=END, eos_token=END, pad_token=END)


def windows(stream: Tensor, length: int, count: int) -> Tensor:
    """Windows spread evenly over a stream, int64 (at most ``count``, ``length``), none on top of another.

    Raises:
        DataError: the stream is shorter than one.
    """
    there = len(stream) // length
    if not there:
        raise DataError(f"The held-out text has {len(stream)} tokens, and a window takes {length}; pass more text.")
    places = torch.linspace(0, there - 1, min(count, there)).long()
    return stream[: there * length].view(there, length)[places].long()


def batch_of(stream: Tensor, step: int, *, length: int, batch: int, seed: int) -> Tensor:
    """The training batch of a step, counted from 0: int64 (batch, length).

    Every epoch cuts the stream at another place and takes each piece once, in an order of its own. The batch follows
    from the step alone, so a training that goes on later sees what it would have seen.

    Raises:
        DataError: the stream is too short for one batch.
    """
    per_epoch = (len(stream) - length) // (length * batch)
    if per_epoch < 1:
        raise DataError(
            f"The text has {len(stream)} tokens, too few for a batch of {batch} x {length}; pass more text."
        )
    epoch, place = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    first = int(torch.randint(length, (1,), generator=generator))
    order = torch.randperm((len(stream) - first) // length, generator=generator)
    rows = order[place * batch : (place + 1) * batch]
    return stream[first:][: len(order) * length].view(len(order), length)[rows].long()
