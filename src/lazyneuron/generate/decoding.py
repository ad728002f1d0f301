"""Decoding with transformers' ``generate()``, timed token by token, and compared with the dense evaluation."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.gpu.execution import GpuExecution
from lazyneuron.accelerate.head.status import certified_head
from lazyneuron.accelerate.path import DENSE
from lazyneuron.accelerate.quantised.execution import (
    EVERY,
    SPARSE,
    QuantisedExecution,
    accelerated_blocks,
    every_neuron,
)
from lazyneuron.core.errors import MALFORMED, DataError, LazyNeuronError, said

Inputs = Mapping[str, Tensor]
# of the largest logit: what two orders of sums may differ by in the logits of a model of this dtype
_ROUNDING = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 1.6e-2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """What one call of ``generate()`` gave, and how long it took.

    Attributes:
        tokens: new tokens.
        prompt_tokens: tokens of the prompt.
        prefill_ms: until the first new token was there.
        token_ms: between two tokens, for each after the first; what the caller does with a token does not count.
        computed: share of the (token, neuron) pairs of the blocks whose rows were read for the tokens after the first,
            in [0, 1]; None where no block is accelerated, or there is no such token.
        candidates: entries of the head that a certified head computed for a token, by the mean; None where none did.
    """

    tokens: tuple[int, ...]
    prompt_tokens: int
    prefill_ms: float
    token_ms: tuple[float, ...]
    computed: float | None
    candidates: float | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """By the median token; None for a single one."""
        return 1e3 / statistics.median(self.token_ms) if self.token_ms else None

    @property
    def prefill_tokens_per_s(self) -> float:
        """Tokens of the prompt over the time until the first new one."""
        return 1e3 * self.prompt_tokens / self.prefill_ms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """How the tokens of two decodings agree.

    Attributes:
        equal: tokens before the first difference.
        of: tokens of the longer one.
        tie: whether the two tokens at the first difference are equally likely up to rounding; None without one.
    """

    equal: int
    of: int
    tie: bool | None


def settings_for(
    model: nn.Module,
    *,
    max_new_tokens: int,
    sample: bool = False,
    temperature: float | None = None,
    top_p: float | None = None,
) -> Any:
    """The model's own generation settings with these in their places; greedy unless ``sample``."""
    owner: Any = model
    settings = copy.deepcopy(owner.generation_config)
    settings.max_new_tokens, settings.max_length, settings.min_length = max_new_tokens, None, 0
    settings.do_sample, settings.num_beams = sample, 1
    if not sample:
        settings.top_k = None
    settings.temperature, settings.top_p = (temperature or 1.0, top_p or 1.0) if sample else (None, None)
    if settings.pad_token_id is None:
        ends = settings.eos_token_id
        settings.pad_token_id = ends[0] if isinstance(ends, list) else ends or 0
    return settings


def decode(
    model: nn.Module,
    inputs: Inputs,
    settings: Any,
    *,
    dense: bool = False,
    seed: int = 0,
    on_tokens: Callable[[list[int]], None] = lambda tokens: None,
) -> Decoding:
    """Generate from one prompt.

    Args:
        model: a language model in evaluation mode, accelerated or not.
        inputs: ``input_ids`` (1, tokens) and ``attention_mask`` of the same shape.
        settings: a transformers ``GenerationConfig``; see :func:`settings_for`.
        dense: evaluate every neuron, by the same kernels and with the same bits where weights are quantised, and all
            entries of the head.
        seed: of the sampling.
        on_tokens: called with new tokens as they come.

    Raises:
        DataError: the model cannot generate from these inputs.
    """
    watch = _Watch(model, on_tokens)
    runner: Any = model
    # the class's own method does not know of a certified head
    generate = functools.partial(type(runner).generate, runner) if dense else runner.generate
    torch.manual_seed(seed)
    with torch.inference_mode(), every_neuron(model) if dense else contextlib.nullcontext():
        watch.start()
        try:
            generate(**inputs, generation_config=settings, streamer=watch)
        except LazyNeuronError:
            raise
        except MALFORMED as error:
            raise DataError(
                f"The model cannot generate from this prompt ({type(error).__name__}: {said(error)}); check its folder."
            ) from error
    return watch.decoding(int(inputs["input_ids"].shape[-1]))


@torch.inference_mode()
def compare(model: nn.Module, inputs: Inputs, one: Decoding, other: Decoding) -> Agreement:
    """Where two decodings of the same prompt part, and whether that is a tie."""
    longer = max(len(one.tokens), len(other.tokens))
    pairs = zip(one.tokens, other.tokens, strict=False)
    shorter = min(len(one.tokens), len(other.tokens))
    at = next((k for k, (a, b) in enumerate(pairs) if a != b), shorter)
    if at == longer:
        return Agreement(equal=at, of=longer, tie=None)
    if at == shorter:
        return Agreement(equal=at, of=longer, tie=False)
    logits = _logits_after(model, inputs, one.tokens[:at])
    apart = float((logits[one.tokens[at]] - logits[other.tokens[at]]).abs())
    limit = _ROUNDING.get(getattr(model, "dtype", torch.float32), 1e-5) * float(logits.abs().max())
    return Agreement(equal=at, of=longer, tie=apart <= limit)


def _logits_after(model: nn.Module, inputs: Inputs, tokens: tuple[int, ...]) -> Tensor:
    """Logits of the next token in float32, evaluated densely from the whole prefix at once."""
    owner: Any = model
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    more = torch.tensor([tokens], dtype=torch.long)
    with every_neuron(model):
        if owner.config.is_encoder_decoder:
            start = owner.generation_config.decoder_start_token_id
            first = torch.tensor([[owner.config.decoder_start_token_id if start is None else start]])
            found = owner(input_ids=ids, attention_mask=mask, decoder_input_ids=torch.cat([first, more], 1))
        else:
            longer = torch.cat([mask, torch.ones_like(more)], 1)
            found = owner(input_ids=torch.cat([ids, more], 1), attention_mask=longer)
    logits: Tensor = found.logits[0, -1].float()
    return logits


class _Watch:
    """What transformers calls a streamer: told of the prompt, then of every new token."""

    def __init__(self, model: nn.Module, on_tokens: Callable[[list[int]], None]) -> None:
        self._runs = accelerated_blocks(model)
        self._head = certified_head(model)
        self._on_tokens = on_tokens
        self._tokens: list[int] = []
        self._times: list[float] = []
        self._prompt_seen = False
        self._before = self._entries_before = (0, 0)
        self._left = 0.0

    def start(self) -> None:
        """The clock runs."""
        self._entries_before = self._entries()
        self._left = time.perf_counter()

    def put(self, value: Tensor) -> None:
        """Called by ``generate()``, first with the prompt."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._times.append(time.perf_counter() - self._left)
        if not self._tokens:
            self._before = self._pairs()
        new = value.flatten().tolist()
        self._tokens += new
        self._on_tokens(new)
        self._left = time.perf_counter()

    def end(self) -> None:
        """Called by ``generate()`` at the end."""

    def _entries(self) -> tuple[int, int]:
        """Entries that a certified head computed, and for how many tokens."""
        return (0, 0) if self._head is None else (self._head.computed, self._head.tokens)

    def _pairs(self) -> tuple[int, int]:
        """Pairs (token, neuron) computed, and all; a dense call of a block counts as one token."""
        computed = every = 0
        for run in self._runs:
            if isinstance(run, QuantisedExecution):
                pairs, _, tokens, _ = (run.counts + run.counts_of_every).tolist()
                hidden = run.block.d_hidden
                others = sum(n for why, n in run.ran.items() if why not in (SPARSE, EVERY))
            elif isinstance(run, GpuExecution):
                pairs, tokens, _ = run.densities.totals()
                hidden = run.d_hidden
                others = sum(n for why, n in run.ran.items() if isinstance(why, str) or why is DENSE)
            else:
                pairs, _, tokens, _ = run.current.totals()
                hidden = run.following.d_hidden
                others = sum(n for why, n in run.ran.items() if isinstance(why, str) or why is DENSE)
            computed += pairs + others * hidden
            every += (tokens + others) * hidden
        return computed, every

    def decoding(self, prompt_tokens: int) -> Decoding:
        """What was seen."""
        computed, every = (now - then for now, then in zip(self._pairs(), self._before, strict=True))
        entries, tokens = (now - then for now, then in zip(self._entries(), self._entries_before, strict=True))
        later = len(self._times) > 1
        return Decoding(
            tokens=tuple(self._tokens),
            prompt_tokens=prompt_tokens,
            prefill_ms=1e3 * self._times[0] if self._times else 0.0,
            token_ms=tuple(1e3 * t for t in self._times[1:]),
            computed=computed / every if later and every else None,
            candidates=entries / tokens if tokens else None,
        )
