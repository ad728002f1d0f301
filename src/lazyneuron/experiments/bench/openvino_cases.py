"""The models that are exported to OpenVINO and timed there: what builds them, their inputs and their density."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.sample import block_inputs
from lazyneuron.blocks import find_blocks, replace_activation_
from lazyneuron.blocks.activation import Activation
from lazyneuron.core.undo import transaction
from lazyneuron.experiments.experiment import SEED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One model with its inputs.

    Attributes:
        name: what it is shaped as.
        build: the model, in evaluation mode.
        batch: (sequences, tokens of each) to an input.
        sizes: sequences and tokens of each that are timed.
        density: share of neurons that fire, in every block.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[int, int], Any]
    sizes: tuple[tuple[int, int], ...]
    density: float


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2 with ReLU."""
    from lazyneuron.experiments.demo.encoder import load_minilm

    model = load_minilm().model
    with transaction(model, "benchmark") as change:
        for block in find_blocks(model):
            replace_activation_(change, block, Activation("relu"))
    return model


def t5_base_encoder() -> nn.Module:
    """An encoder in the shape of T5-base, with random weights."""
    from transformers import T5Config, T5EncoderModel

    sizes: Any = {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_heads": 12, "vocab_size": 30000}
    model: nn.Module = T5EncoderModel(T5Config(**sizes))  # type: ignore[no-untyped-call]
    return model.eval()


def detr_encoder() -> nn.Module:
    """An encoder in the shape of DETR's, with random weights."""
    layer = nn.TransformerEncoderLayer(256, 8, 2048, activation="relu", batch_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).eval()


def _ids(sequences: int, tokens: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(1000, 30000, (sequences, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _pixels(sequences: int, tokens: int) -> Tensor:
    return torch.randn(sequences, tokens, 256, generator=torch.Generator().manual_seed(SEED))


def sparse(case: Case) -> nn.Module:
    """The case's model at its density, the same at every call."""
    torch.manual_seed(SEED)
    model = case.build()
    with_density(model, [case.batch(8, 48)], case.density)
    return model


@torch.no_grad()
def with_density(model: nn.Module, batches: Sequence[Any], density: float) -> None:
    """Set the biases of the first layers so that this share of neurons fires on the batches, block after block."""
    for block in find_blocks(model, batches[0]):
        layer: Any = block.up.module
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(block.d_hidden))
        z = block.pre_activation(block_inputs(model, [block], batches)[block.name])
        layer.bias.sub_(torch.quantile(z, 1 - density, dim=0))


_TEXT = ((1, 60), (32, 48))
CASES = (
    Case(name="all-MiniLM-L6-v2", build=minilm, batch=_ids, sizes=((1, 10), *_TEXT), density=0.05),
    Case(name="all-MiniLM-L6-v2", build=minilm, batch=_ids, sizes=_TEXT, density=0.10),
    Case(name="T5-base encoder", build=t5_base_encoder, batch=_ids, sizes=((1, 60), (8, 48)), density=0.05),
    Case(name="DETR encoder", build=detr_encoder, batch=_pixels, sizes=((1, 850),), density=0.05),
)
