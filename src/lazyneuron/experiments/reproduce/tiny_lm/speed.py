"""Tokens a second of transformers' ``generate`` in every format, dense and sparse, interleaved in one process."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyneuron.accelerate.quantised.execution import every_neuron
from lazyneuron.core.timing import interleaved
from lazyneuron.experiments.reproduce.tiny_lm.evaluation import load_trained
from lazyneuron.experiments.reproduce.tiny_lm.quality import FORMATS, Format, quantised_model, sparse_model
from lazyneuron.experiments.reproduce.tiny_lm.text import Text, windows

_TIMED = tuple(form for form in FORMATS if form.bits != "int4" or form.group == 32)


def tokens_per_second(
    models: Mapping[str, Path], text: Text, *, rounds: int, tokens: int = 64
) -> dict[str, dict[str, dict[str, float]]]:
    """Decode after a held-out beginning of 16 tokens, all variants in turn.

    Args:
        models: name -> folder of the trained model.
        text: its held-out part is read.
        rounds: counted runs of each variant.
        tokens: to decode in a run.

    Returns:
        Name -> format -> median tokens/s ``"dense"`` and, where there is one, ``"sparse"``. Dense means torch's own
        layers where weights are kept, and else the same kernels reading every row.
    """
    prompts = windows(text.files, 16, rounds + 1)
    calls: dict[tuple[str, str, str], Callable[[Tensor], object]] = {}
    for name, folder in models.items():
        trained = load_trained(folder)
        for form in _TIMED:
            for kind, call in _variants(trained, form, tokens).items():
                calls[(name, form.name, kind)] = call
    inputs = [prompt[None] for prompt in prompts]
    times = interleaved(
        {str(name): call for name, call in calls.items()}, inputs, budget_s=0.0, least=rounds, most=rounds, warm_up=1
    )
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (name, form_name, kind), one in zip(calls, times.values(), strict=True):
        found.setdefault(name, {}).setdefault(form_name, {})[kind] = tokens / (one.median_us * 1e-6)
    return found


def _variants(trained: Any, form: Format, tokens: int) -> dict[str, Callable[[Tensor], object]]:
    sparse = sparse_model(trained, form, impl="auto")
    if form.bits == "keep":
        dense = _generation(copy.deepcopy(trained).to(form.dtype), tokens)
    else:
        dense = _generation(sparse or quantised_model(trained, form), tokens, every=True)
    return {"dense": dense} | ({} if sparse is None else {"sparse": _generation(sparse, tokens)})


def _generation(model: Any, tokens: int, *, every: bool = False) -> Callable[[Tensor], object]:
    def call(prompt: Tensor) -> object:
        mask = torch.ones_like(prompt)
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        with every_neuron(model) if every else contextlib.nullcontext():
            return model.generate(prompt, attention_mask=mask, **options)

    return call
