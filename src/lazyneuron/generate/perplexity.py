"""How well a language model predicts a text: cross-entropy a token, and perplexity."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.core.errors import DataError

_AT_ONCE, _LOGITS = 8, 2**26  # windows, and logits, that are computed together


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextFit:
    """What a model made of a text.

    Attributes:
        perplexity: exp of the mean cross-entropy of a token.
        tokens: how many were predicted.
        length: of the windows that the text was cut into, in tokens; the first token of each is given.
    """

    perplexity: float
    tokens: int
    length: int


def fit_of(model: Any, ids: Tensor, *, length: int, advance: Callable[[float], None] = lambda share: None) -> TextFit:
    """Perplexity of a causal language model on a text.

    Args:
        model: a Hugging Face causal language model, in evaluation mode.
        ids: int64 (tokens,), the text.
        length: tokens of a window, at most the model's context; what is left over at the end is a shorter one.
        advance: told the share that is done.

    Returns:
        The fit; windows do not see each other, so a longer length gives a lower perplexity.

    Raises:
        DataError: the text or a window has fewer than two tokens.
    """
    if ids.dim() != 1 or len(ids) < 2 or length < 2:
        raise DataError(f"A perplexity needs at least two tokens, got {ids.numel()} in windows of {length}; pass more.")
    whole = len(ids) // length
    parts = [ids[: whole * length].view(whole, length)] if whole else []
    rest = ids[whole * length :]
    parts += [rest[None]] if len(rest) > 1 else []
    at_once = min(_AT_ONCE, max(1, _LOGITS // (length * int(model.config.get_text_config().vocab_size))))
    total, tokens = 0.0, 0
    for rows in (rows for windows in parts for rows in torch.split(windows, at_once)):
        found = losses(model, rows)
        total, tokens = total + float(found.sum()), tokens + found.numel()
        advance(min(1.0, tokens / len(ids)))
    return TextFit(perplexity=math.exp(total / tokens), tokens=tokens, length=length)


@torch.no_grad()
def losses(model: Any, windows: Tensor, *, advance: Callable[[float], None] = lambda share: None) -> Tensor:
    """Cross-entropy of every token but the first of each window, float64 (windows, length - 1), in nats."""
    found = []
    for rows in torch.split(windows, _AT_ONCE):
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        found.append(loss.double().view(len(rows), -1))
        advance(_AT_ONCE * len(found) / len(windows))
    return torch.cat(found)


def perplexity(found: Tensor) -> float:
    """Of the losses of some tokens."""
    return math.exp(float(found.mean()))
