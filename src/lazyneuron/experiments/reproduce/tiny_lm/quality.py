"""Perplexity of one model in every format, dense and sparse, and how often sparse decoding chooses the same token."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.accelerate.quantised.modules import Quantised, QuantisedDown, QuantisedLinear
from lazyneuron.blocks import Activation, find_blocks
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.ops.quantised import operators

WINDOWS_AT_ONCE = 8


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
    quantised = copy.deepcopy(copied)
    accelerate_(quantised, weights=form.bits, rest=form.bits, group=form.group)  # type: ignore[arg-type]
    for name, module in quantised.named_modules():
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
    copied = copy.deepcopy(model).to(form.dtype).eval()
    try:
        if form.bits == "keep":
            accelerate_(copied, impl=impl)
            return copied
        receipt = accelerate_(copied, weights=form.bits, rest=form.bits, group=form.group)  # type: ignore[arg-type]
    except NoBlocksError:
        return None
    return copied if receipt.config["blocks"] else None


class AllRows(nn.Module):
    """A gated block on quantised weights that reads every row, whatever fires.

    Args:
        gate, up, down: its layers.
        activation: of the gate.

    Attributes:
        counts: pairs of token and neuron computed and fired, tokens, calls.
    """

    def __init__(
        self, gate: QuantisedLinear, up: QuantisedLinear, down: QuantisedDown, *, activation: Activation
    ) -> None:
        super().__init__()
        self.counts = torch.zeros(4, dtype=torch.int64)
        self._arguments = operators.block_arguments(
            (gate.quantised, gate.bias),
            (down.quantised, down.bias),
            up=(up.quantised, up.bias),
            activation=activation,
            counts=self.counts,
            every=True,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        return operators.mlp(x, *self._arguments)


def reading_all(model: nn.Module, form: Format) -> Any:
    """A copy in a format that runs densely, at the speed that there is here: kernels where weights are quantised."""
    copied = copy.deepcopy(model).to(form.dtype).eval()
    if form.bits == "keep":
        return copied
    found = find_blocks(copied)
    receipt = accelerate_(copied, weights=form.bits, rest=form.bits, group=form.group)  # type: ignore[arg-type]
    for block in found:
        if block.name not in receipt.config["blocks"] or block.gate is None:
            continue
        gate, up, down = (copied.get_submodule(site.name) for site in (block.gate, block.up, block.down))
        assert isinstance(gate, QuantisedLinear) and isinstance(up, QuantisedLinear) and isinstance(down, QuantisedDown)
        copied.set_submodule(block.name, AllRows(gate, up, down, activation=block.activation))
    return copied


@torch.no_grad()
def losses(model: Any, windows: Tensor, *, advance: Callable[[float], None] = lambda share: None) -> Tensor:
    """Cross-entropy of every token but the first of each window, float64 (windows, length - 1), in nats."""
    found = []
    for rows in torch.split(windows, WINDOWS_AT_ONCE):
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        found.append(loss.double().view(len(rows), -1))
        advance(WINDOWS_AT_ONCE * len(found) / len(windows))
    return torch.cat(found)


def perplexity(found: Tensor) -> float:
    """Of the losses of some tokens."""
    return math.exp(float(found.mean()))
