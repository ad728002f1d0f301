"""The linear layers of a model, whatever their class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite


def find_linears(model: nn.Module) -> dict[str, LinearSite]:
    """Every module that computes ``x W^T + b`` or ``x W + b``, by dotted name.

    An adapter (a module with a linear ``base_layer``) stands for what it wraps. A layer that several modules hold has
    a name for each of them.
    """
    found: dict[str, LinearSite] = {}
    wrapped: tuple[str, ...] = ()
    held: set[tuple[int, int]] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        holder = model.get_submodule(name.rpartition(".")[0])
        if name.startswith(wrapped) or (id(holder), id(module)) in held:
            continue
        held.add((id(holder), id(module)))
        base = module._modules.get("base_layer")
        if base is not None and (layout := _layout(base)) is not None:
            wrapped += (name + ".",)
            found[name] = LinearSite(name=name, module=module, transposed=layout)
        elif (layout := _layout(module)) is not None:
            found[name] = LinearSite(name=name, module=module, transposed=layout)
    return found


def _layout(module: nn.Module) -> bool | None:
    """False for a weight of shape (out, in), True for (in, out), None when the module is no linear layer."""
    if isinstance(module, nn.Linear):
        return False if isinstance(getattr(module, "weight", None), Tensor) else None
    shape = (getattr(module, "out_features", None), getattr(module, "in_features", None))
    if callable(getattr(module, "weight", None)) and all(isinstance(n, int) for n in shape):
        return False if tuple(LinearSite(name="", module=module).weight.shape) == shape else None
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim != 2 or not weight.is_floating_point() or weight.is_meta or module._modules:
        return None
    if _multiplies(module, weight.t()):
        return False
    return True if _multiplies(module, weight) else None


@torch.no_grad()
def _multiplies(module: nn.Module, matrix: Tensor) -> bool:
    """Is the module ``x -> x @ matrix + bias``? Asked with one small input."""
    x = torch.linspace(-1, 1, matrix.shape[0], dtype=matrix.dtype, device=matrix.device)[None]
    try:
        y = module(x)
    except Exception:
        return False
    bias = module._parameters.get("bias")
    wanted = x @ matrix
    wanted = wanted + bias if bias is not None and bias.shape == wanted.shape[1:] else wanted
    return isinstance(y, Tensor) and _close(y, wanted)


def is_sharded(site: LinearSite) -> bool:
    """Is the weight a distributed tensor, of which only a part is here?"""
    return hasattr(site.module._parameters.get("weight"), "device_mesh")


def _close(y: Tensor, wanted: Tensor) -> bool:
    """Are they the same up to rounding, with NaN and infinity in the same places?"""
    if y.shape != wanted.shape:
        return False
    limit = 1e-4 if wanted.dtype in (torch.float32, torch.float64) else 3e-2
    scale = wanted.float().abs().nan_to_num(posinf=0).amax() if wanted.numel() else wanted.new_zeros(()).float()
    return torch.allclose(y.float(), wanted.float(), rtol=0, atol=float(limit * scale), equal_nan=True)
