"""What an adapter around a linear layer, as PEFT's, adds to the layer's weight."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lazyneuron.core.errors import ConfigError


def additions(module: Any, name: str) -> list[Tensor]:
    """What the adapters that are in effect add to a layer's weight, in the layout of that weight.

    Args:
        module: the adapter, with the layer as its ``base_layer``.
        name: the layer's, for the sentence of an error.

    Raises:
        ConfigError: an adapter does something else than adding to the weight.
    """
    if getattr(module, "disable_adapters", False):
        return []
    merged, held = getattr(module, "merged_adapters", ()), getattr(module, "lora_A", None)
    names = [one for one in getattr(module, "active_adapters", ()) if one not in merged]
    names = [one for one in names if held is None or one in held]  # the others are of other layers
    scales = any(one in getattr(module, "lora_variant", ()) for one in names)  # DoRA and its kin
    biased = any(getattr(factor, "bias", None) is not None for factor in getattr(module, "lora_B", {}).values())
    if not callable(getattr(module, "get_delta_weight", None)) or scales or biased:
        raise ConfigError(f"The adapter of {name} does more than add to its weight; merge it first.")
    return [module.get_delta_weight(one) for one in names]
