"""A batch's loss, per sample and unscaled, whatever a model returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError

Loss = Callable[[Any, Any], Tensor]


class HasScale(Protocol):
    """A gradient scaler, such as ``torch.amp.GradScaler``."""

    def get_scale(self) -> float:
        """By how much it multiplies losses now."""


def scale_of(loss_scale: float | HasScale) -> float:
    """The factor that a loss carries.

    Raises:
        ConfigError: it is not positive.
    """
    if not isinstance(loss_scale, int | float) and not hasattr(loss_scale, "get_scale"):
        raise ConfigError(f"loss_scale is a number > 0 or a gradient scaler, got {described(loss_scale)}.")
    scale = float(loss_scale if isinstance(loss_scale, int | float) else loss_scale.get_scale())
    if not scale > 0:
        raise ConfigError(f"loss_scale is a number > 0, got {scale}.")
    return scale


def samples_in(batch: Any) -> int:
    """Samples in a batch: the length of the first tensor that has one."""
    values = [batch] if isinstance(batch, Tensor) else list(batch.values() if isinstance(batch, Mapping) else batch)
    return next((len(v) for v in values if isinstance(v, Tensor) and v.dim()), 1)


def summed_loss(output: Any, batch: Any, loss: Loss | None, *, samples: int) -> Tensor:
    """The sum of the samples' losses, a scalar.

    Raises:
        ConfigError: there is no loss, or it is neither a scalar nor one number a sample.
    """
    value = getattr(output, "loss", None) if loss is None else loss(output, batch)
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"No loss was given and the model's output ({type(output).__name__}) has none; pass loss=, from "
            "(output, batch) to a scalar or one number a sample."
        )
    if value.numel() == 1:
        return value.reshape(()) * samples
    if value.dim() == 1 and len(value) == samples:
        return value.sum()
    raise ConfigError(f"A loss is a scalar or has one number for each of {samples} samples, got {tuple(value.shape)}.")
