"""The input of a block, made again in the backward from what the norm in front of it keeps anyway."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

_ATTRIBUTE = "_lazyneuron_source"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a norm's output came from.

    Attributes:
        input: of the norm, which its own backward keeps.
        again: the norm, with the parameters that it had then.
        version: of the output that this belongs to.
    """

    input: Tensor
    again: Callable[[Tensor], Tensor]
    version: int


def is_known(module: nn.Module) -> bool:
    """Is this a norm whose code is torch's own, so that it gives the same numbers twice?"""
    return type(module).forward in (nn.LayerNorm.forward, nn.RMSNorm.forward)


def attach_source(y: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
    """Let a norm's output carry where it came from, if all of it is plain and the norm keeps its input.

    Args:
        y: the output.
        x: the input.
        norm: one that :func:`is_known`.
    """
    module: Any = norm
    shape, eps = module.normalized_shape, module.eps
    held = [module.weight, getattr(module, "bias", None)]
    plain = all(p is None or type(p.data) is Tensor for p in held)
    if not (plain and type(y) is Tensor and y.requires_grad and y.dtype == x.dtype):
        return y
    # a few kilobytes: the parameters themselves may be sharded again, or trained, before the backward
    weight, bias = (None if p is None else p.detach().clone() for p in held)

    def again(x: Tensor) -> Tensor:
        if isinstance(norm, nn.RMSNorm):
            return F.rms_norm(x, shape, weight, eps)
        return F.layer_norm(x, shape, weight, bias, eps)

    setattr(y, _ATTRIBUTE, Source(input=x.detach(), again=again, version=y._version))
    return y


def source_of(y: Tensor) -> Source | None:
    """What :func:`attach_source` gave to this tensor, unless it was written since."""
    found = getattr(y, _ATTRIBUTE, None)
    return found if isinstance(found, Source) and found.version == y._version else None
