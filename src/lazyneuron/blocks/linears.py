"""The linear layers of a model, whatever their class."""

from __future__ import annotations

import torch
from torch import nn

from lazyneuron.blocks.block import LinearSite


def find_linears(model: nn.Module) -> dict[str, LinearSite]:
    """Every module that computes ``x W^T + b`` or ``x W + b``, by dotted name; adapters stand for what they wrap."""
    found: dict[str, LinearSite] = {}
    wrapped: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(w + ".") for w in wrapped):
            continue
        base = module._modules.get("base_layer")
        if base is not None and _is_linear(base):
            wrapped.append(name)
            found[name] = LinearSite(name=name, module=module, transposed=_is_transposed(base))
        elif _is_linear(module):
            found[name] = LinearSite(name=name, module=module, transposed=_is_transposed(module))
    return found


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return isinstance(getattr(module, "weight", None), torch.Tensor)
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim != 2 or not weight.is_floating_point() or module._modules or weight.is_meta:
        return False
    return not isinstance(module, nn.Embedding) and _multiplies(module, weight.t()) | _multiplies(module, weight)


def _is_transposed(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return False
    weight = module._parameters["weight"]
    assert weight is not None
    return _multiplies(module, weight)


@torch.no_grad()
def _multiplies(module: nn.Module, matrix: torch.Tensor) -> bool:
    """Is the module ``x -> x @ matrix + bias``? Asked with one small input."""
    x = torch.linspace(-1, 1, matrix.shape[0], dtype=matrix.dtype, device=matrix.device)[None]
    try:
        y = module(x)
    except Exception:
        return False
    wanted = x @ matrix
    bias = module._parameters.get("bias")
    if bias is not None and bias.shape == wanted.shape[1:]:
        wanted = wanted + bias
    return isinstance(y, torch.Tensor) and y.shape == wanted.shape and torch.allclose(y, wanted, rtol=1e-2, atol=1e-3)


def refusal_of_linear(site: LinearSite) -> str | None:
    """Why a layer's execution cannot be replaced, in one sentence, or None."""
    module = site.module
    if "base_layer" in module._modules:
        return f"{site.name} carries an adapter; merge it into the weight first."
    if "weight" not in module._parameters:
        return f"The weight of {site.name} is computed by a parametrization; remove it first."
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        return f"{site.name} has hooks, which would not see what they expect; remove them first."
    if not site.weight.is_floating_point():
        return f"The weight of {site.name} is {site.weight.dtype}, not floating point."
    if type(site.weight.data) is not torch.Tensor:
        return f"The weight of {site.name} is a {type(site.weight.data).__name__}; sharded weights are not supported."
    return None
