"""Decoding token by token with a cache, and what a model would have said at each step of another one's path."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Path:
    """Tokens that a model decoded, or would have decoded on the same path.

    Attributes:
        chosen: int64 (prompts, tokens), its most likely token at each step.
        gap: float32 (prompts, tokens), by how much its logit is above the next one.
    """

    chosen: Tensor
    gap: Tensor


@torch.no_grad()
def decode(
    model: Any,
    prompts: Tensor,
    tokens: int,
    *,
    along: Tensor | None = None,
    advance: Callable[[float], None] = lambda share: None,
) -> Path:
    """Decode greedily, one sequence and one token at a time, as a user does.

    Args:
        model: a causal language model of transformers.
        prompts: int64 (prompts, length).
        tokens: how many to decode after each.
        along: (prompts, tokens) that are fed back instead of the model's own choices, so that two models are compared
            at every step and not only up to the first difference.
        advance: told the share that is done.
    """
    chosen: list[list[int]] = []
    gaps: list[list[float]] = []
    for number, prompt in enumerate(prompts):
        cache, fed = None, prompt[None]
        chosen.append([])
        gaps.append([])
        for place in range(tokens):
            out = model(input_ids=fed, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            best = out.logits[0, -1].float().topk(2)
            chosen[-1].append(int(best.indices[0]))
            gaps[-1].append(float(best.values[0] - best.values[1]))
            following = chosen[-1][-1] if along is None else int(along[number, place])
            fed = torch.tensor([[following]])
        advance((number + 1) / len(prompts))
    return Path(chosen=torch.tensor(chosen), gap=torch.tensor(gaps))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often two models choose the same token on one path.

    Attributes:
        tokens: compared.
        same: of them.
        ties: of the others, where the first model's two best logits are closer than rounding.
    """

    tokens: int
    same: int
    ties: int

    @property
    def share(self) -> float:
        """Of tokens that are the same."""
        return self.same / self.tokens


def agreement(first: Path, second: Path, *, rounding: float) -> Agreement:
    """Compare two models on one path.

    Args:
        first, second: what they chose.
        rounding: two logits of the first model that are closer than this count as a tie.

    Raises:
        ConfigError: the paths are of different sizes.
    """
    if first.chosen.shape != second.chosen.shape:
        raise ConfigError(f"Paths of {first.chosen.shape} and {second.chosen.shape} tokens cannot be compared.")
    same = first.chosen == second.chosen
    ties = ~same & (first.gap < rounding)
    return Agreement(tokens=same.numel(), same=int(same.sum()), ties=int(ties.sum()))


def completions(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, tokens: int, temperature: float = 0.0, seed: int = 0
) -> list[str]:
    """What transformers' ``generate`` makes of each prompt, the prompt included, up to the end token.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        prompts: beginnings of files.
        tokens: to decode at most.
        temperature: 0 for greedy decoding.
        seed: of the sampling.
    """
    found = []
    for prompt in prompts:
        torch.manual_seed(seed)
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]])
        options = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, **options)
        found.append(tokenizer.decode(out[0, 1:], skip_special_tokens=True))
    return found
