"""The language tasks: the next token with a small decoder, and span corruption with a small encoder-decoder."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.errors import DataError, ImplUnavailable
from lazyneuron.experiments.training.spans import corrupt
from lazyneuron.experiments.training.task import Batch, Task
from lazyneuron.experiments.training.text import Tokens

_HELD_OUT_SEQUENCES = 96


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageSize:
    """Size of a language model and of its batches.

    Attributes:
        width, layers, heads, hidden: of the transformer; an encoder-decoder has ``layers`` on each side.
        length: tokens in a sequence.
        batch: sequences in a step.
    """

    width: int = 96
    layers: int = 3
    heads: int = 4
    hidden: int = 384
    length: int = 96
    batch: int = 16

    @staticmethod
    def large(layers: int) -> LanguageSize:
        """T5-small's width and heads, with sequences of 256 tokens, which wants an accelerator."""
        return LanguageSize(width=512, layers=layers, heads=8, hidden=2048, length=256, batch=64)


class _TextTask(Task):
    """Windows of a stream of tokens."""

    def __init__(self, tokens: Tokens, size: LanguageSize) -> None:
        if min(len(tokens.train), len(tokens.held_out)) <= size.length:
            raise DataError(f"{tokens.name} has fewer tokens than one sequence of {size.length}; pass more text.")
        self.tokens, self.size = tokens, size
        self.name = tokens.name
        self.epoch_steps = max(1, len(tokens.train) // (size.length * size.batch))

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Windows at random places."""
        while True:
            starts = torch.randint(len(self.tokens.train) - self.size.length, (self.size.batch,), generator=generator)
            rows = torch.stack([self.tokens.train[s : s + self.size.length] for s in starts.tolist()])
            yield self._batch(rows, generator)

    @functools.cached_property
    def held_out(self) -> Sequence[Batch]:
        """Windows spread evenly over the held-out documents."""
        return self._windows(self.tokens.held_out)

    @functools.cached_property
    def probe(self) -> Sequence[Batch]:
        """Windows spread evenly over the training documents."""
        return self._windows(self.tokens.train)

    def _windows(self, stream: Tensor) -> list[Batch]:
        last = len(stream) - self.size.length
        count = min(_HELD_OUT_SEQUENCES, last + 1)
        starts = torch.linspace(0, last, count).long().tolist()
        rows = torch.stack([stream[s : s + self.size.length] for s in starts])
        generator = torch.Generator().manual_seed(0)
        return [self._batch(part, generator) for part in torch.split(rows, 32)]

    @abc.abstractmethod
    def _batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """What the model is given for some windows."""


class DecoderTask(_TextTask):
    """Predict the next token.

    Attributes:
        tied: whether the embedding is the head's matrix too.
    """

    tied = True

    def new_model(self) -> nn.Module:
        """A pre-norm decoder with ReLU and learned positions.

        Raises:
            ImplUnavailable: transformers is not installed.
        """
        transformers = _transformers()
        config = transformers.GPT2Config(
            vocab_size=self.tokens.vocabulary,
            n_positions=self.size.length,
            n_embd=self.size.width,
            n_layer=self.size.layers,
            n_head=self.size.heads,
            n_inner=self.size.hidden,
            activation_function="relu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=self.tied,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        model: nn.Module = transformers.GPT2LMHeadModel(config)
        return model

    def _batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        return {"input_ids": rows}

    def losses(self, model: nn.Module, batch: Batch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Of each token after the first."""
        logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
        return _token_losses(logits, batch["input_ids"][:, 1:], smoothing)


class SpanTask(_TextTask):
    """Fill in spans that were taken out, as T5 is trained."""

    def new_model(self) -> nn.Module:
        """A T5 with ReLU and its RMS norm.

        Raises:
            ImplUnavailable: transformers is not installed.
        """
        transformers = _transformers()
        config = transformers.T5Config(
            vocab_size=self.tokens.vocabulary + self.size.length,  # a sentinel for each span
            d_model=self.size.width,
            d_kv=self.size.width // self.size.heads,
            d_ff=self.size.hidden,
            num_layers=self.size.layers,
            num_decoder_layers=self.size.layers,
            num_heads=self.size.heads,
            dropout_rate=0.0,
            feed_forward_proj="relu",
            use_cache=False,
            n_positions=self.size.length + 1,
            pad_token_id=0,
            decoder_start_token_id=0,
            eos_token_id=0,
        )
        model: nn.Module = transformers.T5ForConditionalGeneration(config)
        return model

    def _batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        inputs, targets = corrupt(rows, first_sentinel=self.tokens.vocabulary, generator=generator)
        before = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
        return {"input_ids": inputs, "decoder_input_ids": before, "labels": targets}

    def losses(self, model: nn.Module, batch: Batch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Of each token of the targets."""
        inputs = {key: batch[key] for key in ("input_ids", "decoder_input_ids")}
        return _token_losses(model(**inputs).logits, batch["labels"], smoothing)


def _token_losses(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    flat, wanted = logits.flatten(0, 1), targets.flatten()
    loss = F.cross_entropy(flat, wanted, label_smoothing=smoothing, reduction="none")
    return loss, flat.detach().argmax(-1) == wanted


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImplUnavailable(
            "The language experiments need transformers; run pip install 'lazyneuron[hf]'."
        ) from error
    return transformers
