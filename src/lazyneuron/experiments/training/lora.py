"""Low-rank fine-tuning as the authors do it: adapters on every linear layer, vectors trained, tables frozen."""

from __future__ import annotations

import warnings

from torch import nn

from lazyneuron.core.errors import ConfigError, ImplUnavailable


def add_lora_(model: nn.Module, rank: int) -> tuple[str, ...]:
    """Give every linear layer an adapter; then adapters, biases and the scales of norms are what is trained.

    Convolutions, embeddings and positions are frozen, as are the linears' own matrices. The adapters' product is
    scaled by ``1 / rank`` and is 0 at first, so the model computes what it did. Apply recipes afterwards: their zeroth
    biases are trained too.

    Args:
        model: a transformer; changed in place.
        rank: of the adapters.

    Returns:
        The names of the layers that got one. An output layer whose matrix is also the embedding gets none, as an
        adapter would untie it.

    Raises:
        ConfigError: the rank is no number from 1 on, or there is no linear layer.
        ImplUnavailable: peft is not installed.

    Source: the authors' fine-tuning (rank 192 at width 768, lora_alpha 1, no dropout); PEFT makes the adapters.
    """
    if rank < 1:
        raise ConfigError(f"The rank of adapters is at least 1, got {rank}.")
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from transformers.pytorch_utils import Conv1D
    except ImportError as error:
        raise ImplUnavailable("Low-rank fine-tuning needs peft and transformers; run pip install peft.") from error
    tied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and id(m.weight) not in tied}
    if not linears:
        raise ConfigError("The model has no linear layer to adapt; pass a transformer.")
    config = LoraConfig(r=rank, lora_alpha=1, lora_dropout=0.0, target_modules=list(linears))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")  # it is set right for each layer by itself
        inject_adapter_in_model(config, model)
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    for name, parameter in model.named_parameters():
        vector = parameter.ndim == 1 and id(parameter) not in tables
        parameter.requires_grad_(vector or "lora_" in name)
    return tuple(linears)
