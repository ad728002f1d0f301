"""Attention of single queries by one operator, through the interface of transformers for attention functions."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.undo import Transaction
from lazyneuron.ops.decoding.operators import operators
from lazyneuron.ops.sparse_mlp.packed import DTYPES

NAME = "lazyneuron_sdpa"  # what a model's config calls it
_IMPLEMENTATION = "_attn_implementation_internal"
_OTHER = ("position_bias", "softcap", "output_attentions", "cache", "s_aux")  # what changes the sum, or asks for more

_bound: dict[str, Callable[..., Tensor]] = {}  # looked up once, so that compilers see an operator and nothing around it


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """One token that follows its cache: our operator; anything else: transformers' function for ``"sdpa"``.

    Args:
        module: the attention layer.
        query: (batch, heads, tokens, width).
        key: (batch, heads that share, keys, width).
        value: like ``key``.
        attention_mask: None where every key counts.
        kwargs: as transformers passes them.

    Returns:
        (batch, tokens, heads, width), and no weights.
    """
    if attention_mask is None and _fits(query, key, value, kwargs):
        scale = kwargs.get("scaling")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return _bound["attention"](query, key, value, scale), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    out: tuple[Tensor, Tensor | None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return out


def _fits(query: Tensor, key: Tensor, value: Tensor, kwargs: dict[str, Any]) -> bool:
    return (
        query.shape[2] == 1
        and query.is_cpu
        and query.dtype in DTYPES
        and query.dtype == key.dtype == value.dtype
        and query.shape[-1] % 16 == 0
        and key.shape == value.shape
        and key.shape[0] == query.shape[0]
        and query.shape[1] % key.shape[1] == 0
        and not kwargs.get("dropout")
        and not any(kwargs.get(name) is not None and kwargs.get(name) is not False for name in _OTHER)
        and not (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad))
    )


class Registration:
    """Keeps the function known to transformers wherever the model goes, pickled models included."""

    def __init__(self) -> None:
        from transformers import AttentionInterface
        from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

        _bound["attention"] = operators().single_query_attention.default
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)

    def __reduce__(self) -> tuple[type[Registration], tuple[()]]:
        return Registration, ()


def takes_part(model: nn.Module) -> bool:
    """Whether the model calls its attention through the interface, with torch's own function for it.

    Early versions of transformers 4 (4.45, for one) have no such interface; their models keep their attention.
    """
    found = _configs(model)
    return bool(found) and _has_interface()


def _has_interface() -> bool:
    import transformers

    return hasattr(transformers, "AttentionInterface") and find_spec("transformers.masking_utils") is not None


def replace_attention_(change: Transaction, model: nn.Module) -> None:
    """Let single queries attend by the operator.

    Args:
        change: the open transaction.
        model: a transformers model for which :func:`takes_part` holds; changed in place.
    """
    change.set(model, "_lazyneuron_attention", Registration())
    for config in _configs(model):
        change.set(config, _IMPLEMENTATION, NAME)


def _configs(model: nn.Module) -> list[Any]:
    held = {id(c): c for module in model.modules() if (c := module.__dict__.get("config")) is not None}
    return [c for c in held.values() if getattr(c, "__dict__", {}).get(_IMPLEMENTATION) == "sdpa"]
