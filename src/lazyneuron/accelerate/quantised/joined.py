"""Layers that share their input, with their bytes one behind the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lazyneuron.ops.quantised.layout import laid_out


def join_(parts: Sequence[nn.Module]) -> None:
    """Move the bytes of layers that share their input into one memory each, so that one product reads them all."""
    with torch.inference_mode(False), torch.no_grad():
        held = {
            key: [tensor for part in parts if (tensor := part._buffers[key]) is not None]
            for key in ("rows", "scale", "bias")
        }
        if not _one_after_the_other(held["rows"]) or not _one_after_the_other(held["scale"]):
            together = laid_out(torch.cat(held["rows"]), torch.cat(held["scale"]))
            _share_out_(parts, "rows", together[0])
            _share_out_(parts, "scale", together[1])
        if len(held["bias"]) == len(parts) and not _one_after_the_other(held["bias"]):
            _share_out_(parts, "bias", torch.cat(held["bias"]))


def _one_after_the_other(held: Sequence[Tensor]) -> bool:
    ends = [tensor.data_ptr() + len(tensor) * tensor.stride(0) * tensor.element_size() for tensor in held]
    return [tensor.data_ptr() for tensor in held[1:]] == ends[:-1]


def _share_out_(parts: Sequence[nn.Module], key: str, together: Tensor) -> None:
    sizes = [len(tensor) for part in parts if (tensor := part._buffers[key]) is not None]
    for part, piece in zip(parts, torch.split(together, sizes), strict=True):
        part._buffers[key] = piece
