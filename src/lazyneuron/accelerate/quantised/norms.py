"""RMS norms of a quantised model run as one operator each, instead of eight calls of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.undo import Transaction
from lazyneuron.ops.decoding import reference
from lazyneuron.ops.decoding.operators import operators
from lazyneuron.ops.sparse_mlp.packed import DTYPES

_EPS = ("variance_epsilon", "eps", "epsilon", "norm_eps")  # what a norm calls the number that it adds
_RULES = ((0.0, True), (0.0, False), (1.0, False), (1.0, True))  # offset, rounds_first


class NormForward:
    """Stands for the forward of an RMS norm: one operator without gradients on the CPU, else the module's own code.

    Attributes:
        norm: the module.
        eps: added to the mean of squares.
        offset: added to the weight.
        rounds_first: round to the model's dtype before the weight multiplies.
    """

    def __init__(self, norm: nn.Module, rule: Mapping[str, Any]) -> None:
        self.norm = norm
        self.eps, self.offset = float(rule["eps"]), float(rule["offset"])
        self.rounds_first = bool(rule["rounds_first"])
        self._bind()

    def _bind(self) -> None:
        self._call: Callable[..., Tensor] = operators().rms_norm.default

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_call"}  # operators cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., width) to (..., width)."""
        weight = self.norm._parameters["weight"]
        if (
            args
            or kwargs
            or torch.compiler.is_compiling()  # compilers fuse the module's own code
            or weight is None
            or type(x) is not Tensor
            or not x.is_cpu
            or x.dtype != weight.dtype
            or not weight.is_cpu
            or (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
            or torch.is_autocast_enabled("cpu")
        ):
            own: Tensor = type(self.norm).forward(self.norm, x, *args, **kwargs)
            return own
        return self._call(x, weight, self.eps, self.offset, self.rounds_first)


def find_norms(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The RMS norms of a model by name, with the rule that each follows, told by what they make of random tokens.

    Args:
        model: any model, maybe on the meta device; norms whose forward was replaced are left alone.
    """
    rules = {name: _rule(module) for name, module in model.named_modules()}
    return {name: rule for name, rule in rules.items() if rule is not None}


def fuse_norms_(change: Transaction, model: nn.Module, norms: Mapping[str, Mapping[str, Any]]) -> None:
    """Let the norms run as operators.

    Args:
        change: the open transaction.
        model: changed in place.
        norms: of :func:`find_norms`, maybe of an earlier, equal model.
    """
    for name, rule in norms.items():
        norm = model.get_submodule(name)
        change.set(norm, "forward", NormForward(norm, rule))


def _rule(module: nn.Module) -> dict[str, Any] | None:
    weight = module._parameters.get("weight")
    if (
        list(module._parameters) not in (["weight"], ["weight", "bias"])
        or module._parameters.get("bias") is not None
        or type(weight) is not nn.Parameter
        or weight.ndim != 1
        or weight.dtype not in DTYPES
        or module._buffers
        or module._modules
        or "forward" in module.__dict__
    ):
        return None
    held = [value for name in _EPS if isinstance(value := module.__dict__.get(name), float)]
    return next((rule for eps in held if (rule := _fits(module, weight, eps)) is not None), None)


@torch.no_grad()
def _fits(module: nn.Module, weight: Tensor, eps: float) -> dict[str, Any] | None:
    """The first rule that gives the module's output, on tokens large and so small that ``eps`` counts."""
    made = torch.Generator().manual_seed(0)
    draws = torch.randn(5, weight.shape[0], generator=made)
    x = (draws[:4] * torch.tensor([[1.0], [8.0], [eps**0.5], [0.1]])).to(weight.dtype)
    weight = (1 + draws[4] / 4).to(weight.dtype)
    probe = copy.copy(module)  # with a weight of its own
    probe.__dict__["_parameters"] = {**module._parameters, "weight": nn.Parameter(weight, requires_grad=False)}
    try:
        wanted = type(module).forward(probe, x)
    except Exception:  # a module that takes something else is no norm
        return None
    if not isinstance(wanted, Tensor) or wanted.shape != x.shape or wanted.dtype != x.dtype:
        return None
    for offset, rounds_first in _RULES:
        got = reference.rms_norm(x, weight, eps=eps, offset=offset, rounds_first=rounds_first)
        if _near(got, wanted):
            return {"eps": eps, "offset": offset, "rounds_first": rounds_first}
    return None


def _near(got: Tensor, wanted: Tensor) -> bool:
    """Equal up to the last place, which another order of sums may change, and in almost all numbers exactly."""
    step = torch.finfo(got.dtype).eps
    close = torch.allclose(got.float(), wanted.float(), rtol=4 * step, atol=0)
    return close and float((got == wanted).float().mean()) > (0.98 if got.dtype != torch.float32 else 0.2)
