"""Small language models in folders, as `save_pretrained` writes them, with a tokenizer trained on Python sources."""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 384
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([inspect.getsource(module) for module in (functools, inspect, json)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _llama(**others: object) -> nn.Module:
    facts = {
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "hidden_act": "relu", "max_position_embeddings": 128,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**facts, **_ids(), **others}))


def _opt(**others: object) -> nn.Module:
    facts = {
        "hidden_size": 128, "word_embed_proj_dim": 128, "ffn_dim": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128,
    }  # fmt: skip
    return OPTForCausalLM(OPTConfig(**{**facts, **_ids(), **others}))


def _t5(**others: object) -> nn.Module:
    facts = {
        "d_model": 128, "d_ff": 256, "d_kv": 32, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "relu",
        "decoder_start_token_id": 0,
    }  # fmt: skip
    return T5ForConditionalGeneration(T5Config(**{**facts, **_ids(), **others}))


def _gpt2(**others: object) -> nn.Module:
    facts = {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 128, "activation_function": "relu"}
    return GPT2LMHeadModel(GPT2Config(**{**facts, **_ids(), **others}))


def _ids() -> dict[str, int]:
    return {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


BUILD = {"llama": _llama, "opt": _opt, "t5": _t5, "gpt2": _gpt2}


def save(
    folder: Path, name: str, *, dtype: torch.dtype = torch.float32, shard: str = "300KB", **others: object
) -> nn.Module:
    """A model with random weights, in shards, with the tokenizer beside it."""
    torch.manual_seed(0)
    model = BUILD[name](**others).to(dtype).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(3.0)  # so that the next token is seldom in doubt
    model.save_pretrained(folder, max_shard_size=shard)
    tokenizer().save_pretrained(folder)
    return model
