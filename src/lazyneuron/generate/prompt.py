"""A prompt as a model's inputs, checked against the model before any weight is read."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lazyneuron.core.errors import CheckpointError, DataError


def context_of(config: Any) -> int | None:
    """The most tokens that a model of this config has positions for; None where there is no limit."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return int(found) if isinstance(found, int) and not _relative(text) else None


def _relative(config: Any) -> bool:
    """T5's n_positions limits nothing: its positions are relative."""
    return hasattr(config, "relative_attention_num_buckets")


def read_prompt(tokenizer: Any, text: str, config: Any, *, max_new_tokens: int) -> tuple[dict[str, Tensor], int]:
    """The prompt's tokens, and how many new ones fit behind them.

    Args:
        tokenizer: the model's.
        text: the prompt.
        config: the model's.
        max_new_tokens: so many are wanted.

    Returns:
        ``input_ids`` and ``attention_mask`` (1, tokens); and ``max_new_tokens``, or less where the context ends.

    Raises:
        DataError: the prompt is empty, or longer than the context.
        CheckpointError: the tokenizer gives tokens that the model does not know.
    """
    if not text:
        raise DataError("The prompt is empty; give it at least one character.")
    encoded = tokenizer(text, return_tensors="pt", return_attention_mask=True)
    ids, mask = encoded["input_ids"].long(), encoded["attention_mask"].long()
    count = int(ids.shape[-1])
    if count == 0:
        raise DataError(f"The prompt {text[:20]!r} has no token for this model; write another one.")
    known = getattr(config.get_text_config() if hasattr(config, "get_text_config") else config, "vocab_size", None)
    if isinstance(known, int) and int(ids.max()) >= known:
        raise CheckpointError(
            f"The tokenizer gives the token {int(ids.max())}, the model knows {known}; the tokenizer is another "
            "model's."
        )
    limit = context_of(config)
    if limit is None:
        return {"input_ids": ids, "attention_mask": mask}, max_new_tokens
    room = limit if config.is_encoder_decoder else limit - count
    if count > limit or room < 1:
        raise DataError(
            f"The prompt has {count} tokens, and the model's context is {limit}, of which one has to be left for an "
            "answer; shorten the prompt."
        )
    return {"input_ids": ids, "attention_mask": mask}, min(max_new_tokens, room)
