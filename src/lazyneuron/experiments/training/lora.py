"""Low-rank fine-tuning as the authors do it: adapters on every linear layer, vectors trained, matrices frozen."""

from __future__ import annotations

import warnings

from torch import nn

from lazyneuron.core.arguments import check_model
from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.core.numbers import whole


def add_lora_(model: nn.Module, rank: int) -> tuple[str, ...]:
    """Give every linear layer an adapter; then adapters, biases and the scales of norms are what is trained.

    Embeddings, positions and the kernels of convolutions are frozen, as are the linears' own matrices. The adapters'
    product is scaled by ``1 / rank`` and is 0 at first, so the model computes what it did. Torch's attention, which
    packs three of its four layers, gets its adapters as one. Apply recipes afterwards: their zeroth biases are trained
    too.

    Args:
        model: a transformer; changed in place.
        rank: of the adapters.

    Returns:
        The names of the layers that got one; torch's attention counts as one. An output layer whose matrix is also the
        embedding gets none, as an adapter would untie it.

    Raises:
        ConfigError: the rank is no whole number from 1 on; the model is none, is a bare layer, has no linear layer or
            carries adapters already; or one of torch's attentions reads keys or values of another width.
        ImplUnavailable: peft is not installed.

    Source: the authors' fine-tuning (rank 192 at width 768, lora_alpha 1, no dropout); PEFT makes the adapters.
    """
    check_model(model)
    rank = whole(rank, "The rank of adapters", least=1)
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from transformers.pytorch_utils import Conv1D
    except ImportError as error:
        raise ImplUnavailable("Low-rank fine-tuning needs peft and transformers; run pip install peft.") from error
    if any("base_layer" in module._modules for module in model.modules()):
        raise ConfigError("The model carries adapters already; merge or unload them first.")
    tied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    attentions = {n: m for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)}
    other = [name for name, m in attentions.items() if not m._qkv_same_embed_dim]
    if other:
        raise ConfigError(
            f"{other[0]} reads keys or values of another width, which adapters do not know; project them."
        )
    packed = {f"{name}.out_proj" for name in attentions}
    targets = [
        name
        for name, m in model.named_modules()
        if name in attentions or (isinstance(m, nn.Linear | Conv1D) and id(m.weight) not in tied and name not in packed)
    ]
    if not targets or "" in targets:
        raise ConfigError("No linear layer to adapt was found inside the model; pass a transformer, not a layer.")
    config = LoraConfig(r=rank, lora_alpha=1, lora_dropout=0.0, target_modules=targets)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")  # it is set right for each layer by itself
        inject_adapter_in_model(config, model)
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    for name, parameter in model.named_parameters():
        vector = parameter.ndim == 1 and id(parameter) not in tables
        parameter.requires_grad_(vector or "lora_" in name)
    return tuple(targets)
