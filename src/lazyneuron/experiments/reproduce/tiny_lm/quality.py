"""Perplexity of one model in every format, dense and sparse, and how often sparse decoding chooses the same token."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.accelerate.quantised.execution import accelerated_blocks
from lazyneuron.accelerate.quantised.modules import Quantised
from lazyneuron.core.errors import NoBlocksError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """How a model's weights are held.

    Attributes:
        name: as in tables.
        bits: of the linear layers: ``"keep"``, ``"int8"`` or ``"int4"``.
        group: weights that share a scale when they have 4 bits.
        dtype: of everything that is kept.
    """

    name: str
    bits: str = "keep"
    group: int = 32
    dtype: torch.dtype = torch.float32


FORMATS = (
    Format(name="fp32"),
    Format(name="bf16", dtype=torch.bfloat16),
    Format(name="int8", bits="int8"),
    Format(name="int4, groups of 32", bits="int4", group=32),
    Format(name="int4, groups of 64", bits="int4", group=64),
    Format(name="int4, groups of 128", bits="int4", group=128),
)


def formats_for(width: int) -> tuple[Format, ...]:
    """The formats whose groups divide rows of this width."""
    return tuple(form for form in FORMATS if form.bits != "int4" or width % form.group == 0)


def dense_model(model: nn.Module, form: Format) -> Any:
    """A copy in a format, run densely: of quantised weights the numbers that the bytes mean, in layers of float32."""
    copied = copy.deepcopy(model).to(form.dtype).eval()
    if form.bits == "keep":
        return copied
    for name, module in quantised_model(model, form).named_modules():
        if isinstance(module, Quantised):
            layer = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
            layer.weight = nn.Parameter(module.dequantised().clone(), requires_grad=False)
            if module.bias is not None:
                layer.bias = nn.Parameter(module.bias.clone(), requires_grad=False)
            copied.set_submodule(name, layer)
    return copied


def sparse_model(model: nn.Module, form: Format, *, impl: str = "native") -> Any | None:
    """A copy in a format that reads only the rows of neurons that fire; None where no neuron is ever silent.

    Args:
        model: what to copy.
        form: the format.
        impl: of kept weights: ``"native"`` runs the kernels for every number of tokens, ``"auto"`` where they win.
    """
    if form.bits != "keep":
        quantised = quantised_model(model, form)
        return quantised if accelerated_blocks(quantised) else None
    copied = copy.deepcopy(model).to(form.dtype).eval()
    try:
        accelerate_(copied, impl=impl)
    except NoBlocksError:
        return None
    return copied


def quantised_model(model: nn.Module, form: Format) -> Any:
    """A copy whose linear layers have the format's bits."""
    copied = copy.deepcopy(model).to(form.dtype).eval()
    accelerate_(copied, weights=form.bits, rest=form.bits, group=form.group)  # type: ignore[arg-type]
    return copied
