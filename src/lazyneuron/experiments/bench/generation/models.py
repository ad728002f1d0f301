"""Language models with random weights whose blocks fire at a set density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.core.hollow import built_hollow
from lazyneuron.experiments.bench.generation.cases import Case
from lazyneuron.experiments.bench.generation.shapes import Shape
from lazyneuron.experiments.experiment import SEED
from lazyneuron.induce import sparsify_
from lazyneuron.induce.recipes.threshold import Threshold

CONTEXT = 512  # tokens that a model has positions for
_SPREAD = 0.02
_TOKENS = 64  # to set the density on
_MARGIN = 2.0  # how far beyond the least pre-activation seen the bias goes when all fire


def is_thresholded(case: Case) -> bool:
    """Gated blocks at densities between rare and all: a SiLU whose small values are cut off."""
    return case.shape.family == "llama" and 0.1 < case.density < 1


@torch.no_grad()
def build(case: Case) -> nn.Module:
    """The model in bfloat16, quantised and accelerated as the case says, with the density set."""
    model = with_random_weights(case.shape, gate="silu" if is_thresholded(case) else "relu")
    set_density_(model, case)
    if case.weights == case.rest == "keep":
        return model
    batches = [{"input_ids": some_tokens(case.shape, 1, _TOKENS)}] if case.weights == "keep" else None
    accelerate_(model, batches, weights=case.weights, rest=case.rest)  # type: ignore[arg-type]
    return model


def some_tokens(shape: Shape, sequences: int, tokens: int, seed: int = SEED) -> Tensor:
    """Random tokens (sequences, tokens)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, shape.vocabulary, (sequences, tokens), generator=generator)


def with_random_weights(shape: Shape, *, gate: str = "relu", dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """Normal weights in memory of their own; layers repeat the numbers of the first, which only saves drawing them."""
    with built_hollow():
        model = _BUILD[shape.family](shape, gate)
    drawn: dict[torch.Size, Tensor] = {}
    generator = torch.Generator().manual_seed(SEED)
    for module in model.modules():
        for name, hollow in module._parameters.items():
            if hollow is not None:
                filled = _numbers(hollow, drawn, generator, dtype) if name == "weight" else torch.zeros(hollow.shape)
                module._parameters[name] = nn.Parameter(filled.to(dtype), requires_grad=False)
        if shape.family == "llama" and {"gate_proj", "up_proj", "down_proj"} <= set(dict(module.named_children())):
            module.up_proj.bias = module.down_proj.bias = None  # type: ignore[union-attr]
            if gate != "relu":
                module.gate_proj.bias = None  # type: ignore[union-attr]
    owner: Any = model
    owner.generation_config.eos_token_id = None
    owner.generation_config.pad_token_id = 0
    return model.eval()


def _numbers(hollow: Tensor, drawn: dict[torch.Size, Tensor], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    if hollow.ndim < 2:
        return torch.ones(hollow.shape)
    if hollow.shape not in drawn:
        numbers = drawn[hollow.shape] = torch.empty(hollow.shape, dtype=dtype)
        for part in torch.split(numbers, 4096):  # bounds memory
            part.copy_(torch.randn(part.shape, generator=generator) * _SPREAD)
    return drawn[hollow.shape].clone()


def _llama(shape: Shape, gate: str) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape.width, intermediate_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, vocab_size=shape.vocabulary,
        hidden_act=gate, mlp_bias=True, max_position_embeddings=CONTEXT, tie_word_embeddings=False,
    )  # fmt: skip
    model: nn.Module = LlamaForCausalLM(config)
    return model


def _opt(shape: Shape, gate: str) -> nn.Module:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        hidden_size=shape.width, word_embed_proj_dim=shape.width, ffn_dim=shape.hidden,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, vocab_size=shape.vocabulary,
        activation_function=gate, max_position_embeddings=CONTEXT, tie_word_embeddings=False,
    )  # fmt: skip
    model: nn.Module = OPTForCausalLM(config)
    return model


_BUILD: dict[str, Callable[[Shape, str], nn.Module]] = {"llama": _llama, "opt": _opt}


def set_density_(model: nn.Module, case: Case) -> None:
    """Let the wanted share of the pre-activations of random tokens fire, block after block.

    A ReLU's bias is set to the quantile of what its block sees; a SiLU gets a threshold of its magnitude.
    """
    thresholds: dict[str, float] = {}
    hooks = []

    def biased(first: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        z = F.linear(inputs[0], first.weight).float()  # type: ignore[arg-type]
        least = float(z.min()) * _MARGIN
        first.bias.fill_(-(least if case.density == 1 else _quantile(z, 1 - case.density)))  # type: ignore[operator, union-attr]

    def cut(name: str, first: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        z = F.linear(inputs[0], first.weight).float()  # type: ignore[arg-type]
        thresholds[name] = _quantile(F.silu(z).abs(), 1 - case.density)

    for name, module in model.named_modules():
        if name.endswith((".gate_proj", ".fc1")):
            if is_thresholded(case):
                block = name.removesuffix(".gate_proj")

                def hook(first: nn.Module, inputs: tuple[Tensor, ...], block: str = block) -> None:
                    cut(block, first, inputs)

                hooks.append(module.register_forward_pre_hook(hook))
            else:
                hooks.append(module.register_forward_pre_hook(biased))
    try:
        model(input_ids=some_tokens(case.shape, 1, _TOKENS))
    finally:
        for handle in hooks:
            handle.remove()
    if thresholds:
        sparsify_(model, Threshold(density=case.density, thresholds=thresholds))


def _quantile(values: Tensor, share: float) -> float:
    flat = values.flatten()
    return float(flat.kthvalue(max(1, min(flat.numel(), round(share * flat.numel())))).values)
