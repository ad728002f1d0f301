"""Tiny models that generate, whose biases let a chosen share of neurons fire, and the comparison of what they write."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.quantised.execution import every_neuron
from lazyneuron.blocks import find

VOCABULARY = 96
TIE = 1e-4  # of the largest logit: nearer than rounding can tell apart
GREEDY = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}


def llama(*, seed: int = 0, layers: int = 2, density: float = 0.05) -> nn.Module:
    """A decoder with ReLU gates."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, hidden_act="relu", mlp_bias=True, max_position_embeddings=512, initializer_range=0.2,
        bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return planted(LlamaForCausalLM(config).eval(), {"input_ids": prompts(8, 24)}, density)


def t5(*, density: float = 0.05) -> nn.Module:
    """An encoder with a decoder, of plain ReLU blocks."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=64, d_kv=16, d_ff=256, num_layers=2, num_heads=4, initializer_factor=3.0,
        decoder_start_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    batch = {"input_ids": prompts(8, 24), "decoder_input_ids": prompts(8, 12)}
    return planted(T5ForConditionalGeneration(config).eval(), batch, density)


def prompts(sequences: int, length: int, *, seed: int = 3) -> Tensor:
    """Token numbers (sequences, length), none of them padding."""
    return torch.randint(5, VOCABULARY, (sequences, length), generator=torch.Generator().manual_seed(seed))


def planted(model: nn.Module, batch: dict[str, Tensor], density: float) -> nn.Module:
    """Give each neuron of a first layer the bias with which it fires on this share of the batch's tokens."""

    def plant(module: nn.Module, _: Any, z: Tensor) -> Tensor:
        rows = z.reshape(-1, z.shape[-1])
        bias = -rows.quantile(1 - density, 0)
        module.bias = nn.Parameter(bias)
        return z + bias

    firsts = [block.first.module for block in find(model).blocks]
    for first in firsts:
        first.bias = None
    handles = [first.register_forward_hook(plant) for first in firsts]
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    return model


@dataclasses.dataclass
class Agreement:
    """How many tokens two runs wrote, how many are the same, and at how many the two largest logits tie."""

    tokens: int = 0
    same: int = 0
    ties: int = 0

    @property
    def whole(self) -> bool:
        """Is every difference one of a tie?"""
        return self.tokens > 0 and self.same + self.ties == self.tokens


def greedy_agreement(model: nn.Module, ids: Tensor, steps: int) -> Agreement:
    """Tokens written greedily, sparse against every neuron; a sequence is compared until it differs at a tie."""
    options = {**GREEDY, "max_new_tokens": steps, "output_logits": True, "return_dict_in_generate": True}
    with torch.no_grad():
        sparse = model.generate(ids, **options)
        with every_neuron(model):
            dense = model.generate(ids, **options)
    found = Agreement()
    for k, (one, other) in enumerate(zip(sparse.sequences[:, -steps:], dense.sequences[:, -steps:], strict=True)):
        for step in range(steps):
            found.tokens += 1
            if one[step] == other[step]:
                found.same += 1
                continue
            two = dense.logits[step][k].topk(2).values
            if float(two[0] - two[1]) > TIE * float(dense.logits[step][k].abs().max()):
                return found
            found.ties += 1
            break
    return found
