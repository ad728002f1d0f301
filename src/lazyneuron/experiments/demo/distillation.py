"""The demo's way to a sparse model: thresholds and refitted ``down`` layers first, then a short distillation."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lazyneuron.blocks import Activation, MLPBlock, find_blocks
from lazyneuron.core.environment import environment
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.undo import restore_
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
    offsets_for,
    real_rows,
    refit_down_,
    shift_bias_,
    sparsify_,
)
from lazyneuron.train import pack_activations_

THRESHOLDED, OFFSET = "thresholded_gelu", "offset_gelu"
# Of all-MiniLM-L6-v2, over the mean: where each block alone, made sparse, costs as much cosine a neuron more or less
# (blocks cut one at a time to 0.2 and to 0.4, 2026-11; what they cost together is the sum within a tenth).
_SHARES = (1.12, 0.715, 0.665, 0.965, 1.4, 1.135)


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


def layer_errors(student: Any, teacher: Any, batch: Any, *, layers: float = 10.0, embedding: float = 1.0) -> Tensor:
    """The mean relative error of all layers' outputs and one minus the cosine of the embeddings, each by its weight."""
    mask = batch["attention_mask"]
    total = torch.zeros(())
    for ours, theirs in zip(student.hidden_states[1:], teacher.hidden_states[1:], strict=True):
        a, b = real_rows(ours, mask).float(), real_rows(theirs, mask).float()
        total = total + (a - b).square().mean() / b.var()
    ours = sentence_embedding(student.last_hidden_state.float(), mask)
    theirs = sentence_embedding(teacher.last_hidden_state.float(), mask)
    return layers * total / (len(student.hidden_states) - 1) + embedding * (1 - (ours * theirs).sum(-1)).mean()


def relu_copy(original: Network, recipe: Relufy | None = None) -> Network:
    """A copy with ReLU or what a recipe says; what is sparse starts from one, and its blocks are found here alone."""
    model, blocks = copy.deepcopy((original.model, original.blocks))
    receipt = sparsify_(model, recipe or Relufy(), blocks=blocks)
    return Network(model=model, blocks=find_blocks(model), receipt=receipt)


def spread(blocks: Sequence[MLPBlock], density: float) -> dict[str, float]:
    """A density for each block whose mean is the one that is given: of all-MiniLM-L6-v2 as its blocks need, else equal.

    Args:
        blocks: of the model.
        density: their mean, in (0, 1); above 0.6 all get the same.
    """
    shares = _SHARES if len(blocks) == len(_SHARES) and density <= 0.6 else (1.0,) * len(blocks)
    return {block.name: density * share for block, share in zip(blocks, shares, strict=True)}


def sample_blocks(original: Network, ids: Sequence[Sequence[int]]) -> dict[str, BlockSamples]:
    """What the original's blocks are given and answer on some training lines."""
    batches = (padded([ids[i] for i in group]) for group in by_length(ids, tokens=2048))
    return block_samples(original.model, original.blocks, batches=batches)


def closed_form(
    original: Network,
    samples: dict[str, BlockSamples],
    *,
    density: float | Mapping[str, float] | None,
    advance: Callable[[float], None],
    activation: str = "relu",
    bits: int | None = None,
) -> Network:
    """A copy of the original that fires with a given density, without any training by gradients.

    Args:
        original: the model.
        samples: what :func:`sample_blocks` returned.
        density: of each block, or one for each by name; None leaves the biases alone, which only a kind that is zero up
            to 0 takes.
        advance: told the share that is done.
        activation: a kind that is zero up to 0, whose biases are shifted; ``"offset_gelu"``, GELU less a constant where
            it fires; or ``"thresholded_gelu"``, whose threshold is a quantile of what the original's GELU gives.
        bits: of the second layers' weights, as :func:`refit_down_` takes it.
    """
    student = relu_copy(original, _recipe(original, samples, activation=activation, density=density))
    for number, block in enumerate(student.blocks):
        if density is not None and activation not in (THRESHOLDED, OFFSET):
            own = density if isinstance(density, float) else density[block.name]
            shift_bias_(block, samples[block.name], density=own)
        refit_down_(block, samples[block.name], bits=bits)
        advance((number + 1) / len(student.blocks))
    return student


def _recipe(
    original: Network,
    samples: Mapping[str, BlockSamples],
    *,
    activation: str,
    density: float | Mapping[str, float] | None,
) -> Relufy:
    if activation not in (THRESHOLDED, OFFSET):
        return Relufy(activation=Activation(activation))
    assert density is not None, "a threshold comes from a density"
    found = offsets_for if activation == OFFSET else _magnitudes
    return Relufy(per_block=found(original.blocks, samples, density=density))


@torch.no_grad()
def _magnitudes(
    blocks: Sequence[MLPBlock], samples: Mapping[str, BlockSamples], *, density: float | Mapping[str, float]
) -> dict[str, Activation]:
    """Thresholds of the size of GELU's value."""
    found = {}
    for block in blocks:
        own = density if isinstance(density, float) else density[block.name]
        rows = samples[block.name].inputs
        rows = rows[:: max(1, -(-len(rows) * block.d_hidden // 2**21))]
        size = block.activation(block.pre_activation(rows)).abs().flatten()
        limit = float(size.kthvalue(max(1, round((1 - own) * size.numel()))).values)
        found[block.name] = Activation(THRESHOLDED, (limit,))
    return found


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
        last=settings.last_rate,
        pressure=Pressure(target=target, penalty="firing", scale=0.1),
        seconds=settings.train_seconds,
        bf16=bool({"avx512_bf16", "amx_bf16"}.intersection(environment().isa)),
    )
    parameters = [p for name, p in student.model.named_parameters() if not name.startswith(("embeddings.", "pooler."))]
    # torch's fused attention has a slow backward for short lines on a CPU: 38 % of a step, 2026-11, Zen 5
    with sdpa_kernel(SDPBackend.MATH), _packed(student) if settings.pack else contextlib.nullcontext():
        return distill(
            student.model,
            original,
            batches=batches,
            blocks=student.blocks,
            config=config,
            compare=functools.partial(layer_errors, layers=settings.layers_weight, embedding=settings.embedding_weight),
            parameters=parameters,
            on_step=on_step,
        )


@contextlib.contextmanager
def _packed(student: Network) -> Iterator[None]:
    receipt = pack_activations_(student.model, arithmetic="auto", blocks=student.blocks)
    try:
        yield
    finally:
        restore_(student.model, receipt)
