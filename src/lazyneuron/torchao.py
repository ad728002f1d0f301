"""Quantised, sparsely executed MLP blocks through `torchao.quantize_`, beside torchao's own configs for the rest.

Importing this registers :class:`LazyMLPConfig` with torchao.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from torch import nn

from lazyneuron.accelerate.transform import accelerate_
from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import ConfigError, ImplUnavailable

try:
    from torchao.core.config import AOBaseConfig
    from torchao.quantization.transform_module import register_quantize_module_handler
except ImportError as error:
    raise ImplUnavailable(
        "lazyneuron.torchao needs torchao 0.12 or later, which is not installed; run `pip install -U torchao`."
    ) from error

__all__ = ["LazyMLPConfig", "whole_model"]

if TYPE_CHECKING:
    Base = object
else:
    Base = AOBaseConfig


@dataclasses.dataclass
class LazyMLPConfig(Base):
    """What ``torchao.quantize_(model, LazyMLPConfig(...), filter_fn=whole_model)`` does with a model's MLP blocks.

    Their layers are quantised, and rows of neurons that do not fire are not read; all other layers stay as they are,
    for a config of torchao's own. A block is more than one linear layer, so the filter has to let the model itself
    through: :func:`whole_model` does, and so does the name ``""`` in a ``FqnToConfig``.

    Args:
        weights: ``"int8"`` or ``"int4"``.
        group: weights along a row that share a scale when they have 4 bits: 32, 64 or 128.

    Raises:
        ConfigError: another format or group.
    """

    weights: Literal["int8", "int4"] = "int8"
    group: int = 32

    def __post_init__(self) -> None:
        if self.weights not in ("int8", "int4"):
            raise ConfigError(f"weights is 'int8' or 'int4', got {self.weights!r}.")
        if self.group not in (32, 64, 128):
            raise ConfigError(f"group is 32, 64 or 128, got {self.group!r}.")


def whole_model(module: nn.Module, name: str) -> bool:
    """The filter that lets through the model itself, and none of its parts.

    Example:
        >>> from lazyneuron.torchao import whole_model
        >>> whole_model(nn.ReLU(), ""), whole_model(nn.ReLU(), "encoder.activation")
        (True, False)
    """
    return not name


def _taken(model: nn.Module) -> str | None:
    """The first layer of a block whose weight is not a plain one any more."""
    sites = (site for block in find_blocks(model) for site in block.linears)
    return next((site.name for site in sites if type(site.module._parameters.get("weight")) is not nn.Parameter), None)


def _quantise_blocks(module: nn.Module, config: LazyMLPConfig) -> nn.Module:
    """What torchao calls on each module that its filter lets through."""
    if isinstance(module, nn.Linear):
        raise ConfigError(
            "LazyMLPConfig is for MLP blocks, and torchao's own filter gives it single linear layers; pass "
            "filter_fn=lazyneuron.torchao.whole_model."
        )
    if taken := _taken(module):
        raise ConfigError(
            f"{taken} has weights that torchao quantised before; call quantize_ with LazyMLPConfig first, and with "
            "torchao's own config after it."
        )
    accelerate_(module, weights=config.weights, group=config.group)
    return module


register_quantize_module_handler(LazyMLPConfig)(_quantise_blocks)
