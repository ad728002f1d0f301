"""Peng et al. on text: a decoder on the next token, and an encoder-decoder that fills in spans, as the paper's T5."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from lazyneuron.experiments.experiment import Finding, Request, published
from lazyneuron.experiments.reproduce.peng.vision import PUBLISHED
from lazyneuron.experiments.training.ablation import Ablation
from lazyneuron.experiments.training.language import DecoderTask, LanguageSize, SpanTask
from lazyneuron.experiments.training.task import Task
from lazyneuron.experiments.training.text import Tokens, text_tokens
from lazyneuron.experiments.training.trainer import TrainingConfig, Variant
from lazyneuron.induce import DoublyBiased, Pressure, TargetDensity

VOCABULARY = 1024
_DIFFERS = (
    "A small transformer on some megabytes of Python's standard library, 800 steps (8000 at the larger size), in place "
    "of T5-base on C4, 100 000 steps of 256 sequences of 512 tokens. "
    "The published relative cut is read from an abstract that does not say which sparsity it means."
)
_SOURCE = "Peng, Qi, Shi, Gao (2023), arXiv 2309.03004, abstract; Peng et al. (2026), arXiv 2605.25612, abstract"


def decoder_task(data: Path | None, *, large: bool = False) -> DecoderTask:
    """The next token of the standard library, or of the text in a folder."""
    return DecoderTask(_tokens(data, large), LanguageSize.large(8) if large else LanguageSize())


def span_task(data: Path | None, *, large: bool = False) -> SpanTask:
    """Missing spans of the standard library, or of the text in a folder."""
    return SpanTask(_tokens(data, large), LanguageSize.large(6) if large else LanguageSize(layers=2))


def _tokens(data: Path | None, large: bool) -> Tokens:
    return text_tokens(data, 8 * VOCABULARY if large else VOCABULARY)


def variants(*densities: float, strength: float) -> tuple[Variant, ...]:
    """The plain model, the paper's three modules, and the plain model with a penalty that asks for a density.

    Args:
        densities: what to ask for.
        strength: of the penalty at the first step; one that is too strong for the loss damages the model for good.
    """
    targets = [TargetDensity(density=density, strength=strength) for density in densities]
    return (
        Variant(name="vanilla"),
        Variant(name="all three", recipe=DoublyBiased()),
        *(Variant(name=f"pressure to {target.density:g}", pressure=Pressure(target=target)) for target in targets),
    )


def _run_decoder(request: Request) -> Finding:
    config = TrainingConfig(steps=800, learning_rate=3e-3, warmup=40)
    return _ablation(request, config, decoder_task, variants(0.05, strength=0.1))


def _run_spans(request: Request) -> Finding:
    config = TrainingConfig(steps=800, learning_rate=1e-2, warmup=80, decay="root")
    return _ablation(request, config, span_task, variants(0.25, 0.13, strength=1.0))


def _ablation(
    request: Request, config: TrainingConfig, build: Callable[..., Task], compared: Sequence[Variant]
) -> Finding:
    if request.large:
        config = config.for_large()
    if request.quick:
        config = dataclasses.replace(config, steps=30, warmup=5, evaluations=2)
    return Ablation(
        build=functools.partial(build, request.data, large=request.large),
        variants=compared,
        config=config,
        published={"all three": PUBLISHED},
    ).run(request)


EXPERIMENTS = (
    published(
        name="peng-language",
        title="Doubly biased against vanilla, a decoder from scratch on the next token",
        source=_SOURCE,
        differs=_DIFFERS,
        run=_run_decoder,
    ),
    published(
        name="peng-t5",
        title="Doubly biased against vanilla, an encoder-decoder from scratch on span corruption",
        source=_SOURCE,
        differs=_DIFFERS,
        run=_run_spans,
    ),
)
