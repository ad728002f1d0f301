"""Ours, as users run it: transformers' ``generate()`` on the accelerated model, sparse, dense or compiled."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.quantised.execution import every_neuron
from lazyneuron.experiments.bench.generation.cases import Case
from lazyneuron.experiments.bench.generation.models import build, some_tokens
from lazyneuron.generate.decoding import Decoding, compare, decode, settings_for
from lazyneuron.generate.traffic import model_bytes, traffic


class Ours:
    """The model of a case and the ways to run it.

    Attributes:
        model: accelerated as the case says.
        computed: share of the neurons whose rows were read for the last tokens that were decoded sparsely.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.model = build(case)
        self.computed: float | None = None
        self._compiled: Any = None

    def prompt(self, tokens: int, *, sequences: int = 1, seed: int = 0) -> dict[str, Tensor]:
        """Random tokens as the inputs of ``generate()``."""
        ids = some_tokens(self.case.shape, sequences, tokens, seed)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def decode(self, inputs: dict[str, Tensor], tokens: int, *, dense: bool = False) -> list[float]:
        """Milliseconds of each of so many tokens, after the first two."""
        found = self._decoding(inputs, tokens + 2, dense=dense)
        if not dense:
            self.computed = found.computed
        return list(found.token_ms[1:])

    def prefill(self, inputs: dict[str, Tensor], *, dense: bool = False) -> list[float]:
        """Milliseconds of a prompt, with its first token."""
        return [self._decoding(inputs, 1, dense=dense).prefill_ms]

    def forward_ms(self, inputs: dict[str, Tensor], tokens: int) -> list[float]:
        """Milliseconds of each of so many calls of the model alone, with a cache, without ``generate()``."""
        from lazyneuron.core.timing import timed

        runner: Any = self.model
        with torch.inference_mode():
            cache = runner(**inputs, use_cache=True).past_key_values
            one = inputs["input_ids"][:, -1:]

            def call(_: int) -> Any:
                return runner(input_ids=one, past_key_values=cache, use_cache=True)

            return [timed(call, number)[1] / 1e3 for number in range(tokens + 2)][2:]

    def is_right(self) -> bool:
        """Does the sparse evaluation give the tokens of the dense one, ties aside?"""
        inputs = self.prompt(8)
        sparse, dense = (self._decoding(inputs, 12, dense=way) for way in (False, True))
        found = compare(self.model, inputs, sparse, dense)
        quantised = self.case.weights != "keep"
        return found.equal == found.of or (not quantised and bool(found.tie))

    def bytes_a_token(self, *, dense: bool) -> int:
        """Weights that a token reads, at the share of neurons computed last."""
        with quiet_transformers():
            return traffic(self.model, self.prompt(8), dense=dense).bytes_per_token(None if dense else self.computed)

    def model_bytes(self) -> int:
        """Bytes of the model."""
        return model_bytes(self.model)

    @contextlib.contextmanager
    def compiled(self) -> Iterator[None]:
        """Within this, the model's call is compiled; that happens the first time."""
        owner: Any = self.model
        if self._compiled is None:
            owner.compile(dynamic=True)
            self._compiled, owner._compiled_call_impl = owner._compiled_call_impl, None
        owner._compiled_call_impl = self._compiled
        try:
            yield
        finally:
            owner._compiled_call_impl = None

    def _decoding(self, inputs: dict[str, Tensor], tokens: int, *, dense: bool) -> Decoding:
        return decode(self.model, inputs, settings_for(self.model, max_new_tokens=tokens), dense=dense)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within this, transformers logs errors only."""
    from transformers.utils import logging as their_logging

    level = their_logging.get_verbosity()
    their_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        their_logging.set_verbosity(level)


@torch.inference_mode()
def same_as_dense(model: nn.Module, ids: Tensor) -> bool:
    """Are the logits the dense evaluation's, to the last bit?"""
    runner: Any = model
    sparse = runner(input_ids=ids).logits
    with every_neuron(model):
        return torch.equal(sparse, runner(input_ids=ids).logits)
