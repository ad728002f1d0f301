"""The certified head on a trained model: how many entries it computes for a token, and whether the tokens stay."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from lazyneuron.accelerate import certify_head_, head_status
from lazyneuron.accelerate.head.execution import CERTIFIED

CHOICES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled from the 50 largest": {"do_sample": True, "top_k": 50},
}


def certified_decoding(trained: Any, prompts: Tensor, tokens: int) -> dict[str, dict[str, Any]]:
    """Decode in bfloat16 with the whole head and with a certified one, each token chosen in two ways.

    Args:
        trained: a causal language model of transformers; it is copied.
        prompts: int64 (prompts, length).
        tokens: how many to decode after each, ends of texts included.

    Returns:
        Way -> entries of the head, tokens decoded, how many of them are those of the whole head, the mean number of
        entries computed for a token of a certified call, calls that were certified, and the others by reason.
    """
    model = copy.deepcopy(trained).to(torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    whole = {name: _decoded(model, prompts, tokens, options) for name, options in CHOICES.items()}
    certify_head_(model, [{"input_ids": prompts}], always=True)
    found = {}
    before = _seen(model)
    for name, options in CHOICES.items():
        got = _decoded(model, prompts, tokens, options)
        after = _seen(model)
        calls = {why: n - before[1].get(why, 0) for why, n in after[1].items() if n > before[1].get(why, 0)}
        computed, answered = (now - then for now, then in zip(after[0], before[0], strict=True))
        found[name] = {
            "entries": model.config.vocab_size,
            "tokens": got.numel(),
            "same": int((got == whole[name]).sum()),
            "candidates": computed / answered if answered else None,
            "certified": calls.pop(CERTIFIED, 0),
            "all": calls,
        }
        before = after
    return found


def _decoded(model: Any, prompts: Tensor, tokens: int, options: dict[str, Any]) -> Tensor:
    """(prompts, tokens)."""
    found = []
    for number, prompt in enumerate(prompts):
        torch.manual_seed(number)
        ids = prompt[None]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, pad_token_id=0, **options)
        found.append(out[0, len(prompt) :])
    return torch.stack(found)


def _seen(model: Any) -> tuple[tuple[float, int], dict[str, int]]:
    """Entries computed by certified calls and how many these were (a token each); and all calls by what they did."""
    status = head_status(model)
    calls = {CERTIFIED: status.certified_calls, **status.fallbacks}
    return ((status.computed_a_token or 0.0) * status.certified_calls, status.certified_calls), calls
