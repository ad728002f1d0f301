"""The model: a Llama of some 10 M parameters, whose gate is a ReLU or a SiLU."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from lazyneuron.core.errors import ImplUnavailable

Gate = Literal["relu", "silu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the model.

    Attributes:
        vocabulary: token ids.
        width, layers, heads, hidden: of the transformer.
        context: positions that it is built for; windows of this length are trained on.
    """

    vocabulary: int = 4096
    width: int = 256
    layers: int = 6
    heads: int = 4
    hidden: int = 1536
    context: int = 512


def new_model(size: Size, gate: Gate) -> Any:
    """A model with random weights from torch's random state; the embedding is the head too.

    Raises:
        ImplUnavailable: transformers is not installed.
    """
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise ImplUnavailable("tiny-lm needs transformers; run pip install 'lazyneuron[hf]'.") from error
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=size.context,
        hidden_act=gate,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers; its setting comes back afterwards."""
    from transformers.utils import logging

    bars: Any = logging
    before = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            bars.enable_progress_bar()
