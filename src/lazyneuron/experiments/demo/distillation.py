"""The demo's way to a sparse model: thresholds and refitted ``down`` layers first, then a short distillation."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lazyneuron.blocks import MLPBlock, find_blocks
from lazyneuron.core.environment import environment
from lazyneuron.core.receipt import Receipt
from lazyneuron.experiments.demo.encoder import Shuffled, by_length, padded, sentence_embedding
from lazyneuron.experiments.demo.settings import Settings
from lazyneuron.induce import (
    BlockSamples,
    Distillation,
    Pressure,
    Relufy,
    Step,
    TargetDensity,
    block_samples,
    distill,
    real_rows,
    refit_down_,
    shift_bias_,
    sparsify_,
)

# errors of the layers' outputs count ten times the cosine error of the embedding: measured best of 1, 3, 10
_LAYERS_WEIGHT = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A model with what was found in it.

    Attributes:
        model: the model.
        blocks: its MLP blocks.
        receipt: how it was changed; None for the original.
    """

    model: nn.Module
    blocks: Sequence[MLPBlock]
    receipt: Receipt | None = None


def layer_errors(student: Any, teacher: Any, batch: Any) -> Tensor:
    """Ten times the mean relative error of all layers' outputs, plus one minus the cosine of the embeddings."""
    mask = batch["attention_mask"]
    total = torch.zeros(())
    for ours, theirs in zip(student.hidden_states[1:], teacher.hidden_states[1:], strict=True):
        a, b = real_rows(ours, mask).float(), real_rows(theirs, mask).float()
        total = total + (a - b).square().mean() / b.var()
    ours = sentence_embedding(student.last_hidden_state.float(), mask)
    theirs = sentence_embedding(teacher.last_hidden_state.float(), mask)
    return _LAYERS_WEIGHT * total / (len(student.hidden_states) - 1) + (1 - (ours * theirs).sum(-1)).mean()


def relu_copy(original: Network) -> Network:
    """A copy with ReLU; whatever is sparse in the demo starts from one, and its blocks are found here alone."""
    model, blocks = copy.deepcopy((original.model, original.blocks))
    receipt = sparsify_(model, Relufy(), blocks=blocks)
    return Network(model=model, blocks=find_blocks(model), receipt=receipt)


def sample_blocks(original: Network, ids: Sequence[Sequence[int]]) -> dict[str, BlockSamples]:
    """What the original's blocks are given and answer on some training lines."""
    batches = (padded([ids[i] for i in group]) for group in by_length(ids, tokens=2048))
    return block_samples(original.model, original.blocks, batches=batches)


def closed_form(
    original: Network,
    samples: dict[str, BlockSamples],
    *,
    density: float | None,
    advance: Callable[[float], None],
) -> Network:
    """A ReLU copy of the original that fires with a given density, without any training by gradients.

    Args:
        original: the model.
        samples: what :func:`sample_blocks` returned.
        density: of each block; None leaves the biases alone.
        advance: told the share that is done.
    """
    student = relu_copy(original)
    for number, block in enumerate(student.blocks):
        if density is not None:
            shift_bias_(block, samples[block.name], density=density)
        refit_down_(block, samples[block.name])
        advance((number + 1) / len(student.blocks))
    return student


def end_to_end(
    student: Network,
    original: nn.Module,
    ids: Sequence[Sequence[int]],
    *,
    settings: Settings,
    on_step: Callable[[Step], None],
) -> tuple[Step, ...]:
    """Distil the original into the sparse student on training lines, in place.

    Embeddings and pooler stay as they are. The matrix products run in bfloat16 where the processor has instructions
    for it.
    """
    batches = Shuffled(ids, tokens=settings.step_tokens, seed=settings.seed, output_hidden_states=True)
    target = TargetDensity(density=settings.target_density, strength=settings.strength, reach=0.4)
    config = Distillation(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        pressure=Pressure(target=target, penalty="firing", scale=0.1),
        seconds=settings.train_seconds,
        bf16=bool({"avx512_bf16", "amx_bf16"}.intersection(environment().isa)),
    )
    parameters = [p for name, p in student.model.named_parameters() if not name.startswith(("embeddings.", "pooler."))]
    # torch's fused attention has a slow backward for short lines on a CPU: 38 % of a step, 2026-11, Zen 5
    with sdpa_kernel(SDPBackend.MATH):
        return distill(
            student.model,
            original,
            batches=batches,
            blocks=student.blocks,
            config=config,
            compare=layer_errors,
            parameters=parameters,
            on_step=on_step,
        )
