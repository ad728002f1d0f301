"""One made block with inputs: scales from the least subnormal number to the largest, zeros, edges, NaN and infinity."""

from __future__ import annotations

import dataclasses
import math
import random

import torch
from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.thresholded import gelu

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOKENS = (1, 2, 5, 17, 64)
WIDTHS = (1, 3, 16, 37, 64, 96, 130)
HIDDEN = (1, 7, 64, 65, 130)
OUT = (1, 5, 33)
KINDS = (
    "relu",
    "squared_relu",
    "jsrelu",
    "fatrelu",
    "thresholded_silu",
    "thresholded_gelu",
    "thresholded_gelu_tanh",
    "offset_gelu",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What one step of the fuzz runs.

    Attributes:
        block: with made weights.
        x: (..., d_in), contiguous or not.
        flush: run with subnormal numbers flushed to zero.
    """

    block: MLPBlock
    x: Tensor
    flush: bool


class Dice:
    """Random choices and tensors of one case."""

    def __init__(self, seed: int, index: int) -> None:
        self.choices = random.Random(f"{seed}/{index}")
        self.generator = torch.Generator().manual_seed(self.choices.getrandbits(63))

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self.choices.random() < probability

    def exponent(self, dtype: torch.dtype) -> float:
        """Of a tensor's scale: ordinary half of the time, else anywhere in the dtype's range or at one end of it."""
        facts = torch.finfo(dtype)
        least, most = math.log2(facts.smallest_normal * facts.eps), math.log2(facts.max)
        kind = self.choices.random()
        if kind < 0.5:
            return self.choices.uniform(-3, 3)
        if kind < 0.8:
            return self.choices.uniform(least, most)
        return self.choices.uniform(least, least + 25) if kind < 0.9 else self.choices.uniform(most - 12, most)

    def numbers(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """(rows, columns) in float64 within the dtype's range; scales differ by row or by entry at times."""
        value = torch.randn(rows, columns, generator=self.generator, dtype=torch.float64)
        exponent = torch.full((rows, columns), self.exponent(dtype), dtype=torch.float64)
        if self.chance(0.3):
            exponent = torch.tensor([[self.exponent(dtype)] for _ in range(rows)], dtype=torch.float64)
        if self.chance(0.25):
            spread = self.choices.choice([4.0, 30.0, 200.0])
            noise = torch.rand(rows, columns, generator=self.generator, dtype=torch.float64)
            exponent = exponent - spread * noise
        value = value * torch.exp2(exponent.clamp(-200, 200))
        if self.chance(0.2):
            value = value * (torch.rand(rows, columns, generator=self.generator) < 0.5)
        most = torch.finfo(dtype).max
        return value.clamp(-most, most)


def make_case(seed: int, index: int) -> Case:
    """The case of that number; the same on every machine."""
    dice = Dice(seed, index)
    pick = dice.choices.choice
    dtype, gated = pick(DTYPES), dice.chance(0.4)
    d_in, hidden, out, tokens = pick(WIDTHS), pick(HIDDEN), pick(OUT), pick(TOKENS)
    activation = _activation(dice)
    x = dice.numbers(tokens, d_in, dtype)
    decides = dice.numbers(hidden, d_in, dtype)
    offset = _offsets(dice, decides, x, dtype, activation)
    first = _linear(decides, offset, dtype)
    up = _linear(dice.numbers(hidden, d_in, dtype), _bias(dice, hidden, dtype), dtype) if gated else first
    down = _linear(dice.numbers(out, hidden, dtype), _bias(dice, out, dtype), dtype)
    block = MLPBlock(
        name="block",
        up=LinearSite(name="up", module=up),
        gate=LinearSite(name="gate", module=first) if gated else None,
        down=LinearSite(name="down", module=down),
        activation=activation,
        rectifies_up=gated and dice.chance(0.3),
    )
    return Case(block=block, x=_inputs(dice, x.to(dtype)), flush=dice.chance(0.3))


def _activation(dice: Dice) -> Activation:
    kind, uniform = dice.choices.choice(KINDS), dice.choices.uniform
    if kind == "jsrelu":
        mix = dice.choices.choice([0.0, 0.5, 1.0, 10 ** uniform(-6, 6)])
        return Activation(kind, (mix, dice.choices.choice([math.inf, 1.0, 10 ** uniform(-3, 3)])))
    if kind == "fatrelu":
        return Activation(kind, (dice.choices.choice([0.0, 3.5, 1.0, -1.0]) * 10 ** uniform(-3, 3),))
    if kind == "offset_gelu":
        t = dice.choices.choice([-0.3, 0.0, 0.5, uniform(-9, 9)])
        return Activation(kind, (t, dice.choices.choice([0.0, -0.1, gelu(t), 10 ** uniform(-6, 3)])))
    if kind.startswith("thresholded"):
        t = dice.choices.choice([0.1, 0.169, 10 ** uniform(-7, -1), 10 ** uniform(-7, -1), 10 ** uniform(-45, 4)])
        return Activation(kind, (t,))
    return Activation(kind)


def _bias(dice: Dice, size: int, dtype: torch.dtype) -> Tensor | None:
    return dice.numbers(1, size, dtype)[0] if dice.chance(0.6) else None


def _offsets(dice: Dice, weight: Tensor, x: Tensor, dtype: torch.dtype, activation: Activation) -> Tensor | None:
    """Biases; at times such that the pre-activations of one token lie at the ends of the zero set."""
    bias = _bias(dice, len(weight), dtype)
    if not dice.chance(0.5):
        return bias
    ends = [e for e in dataclasses.astuple(activation.zero) if math.isfinite(e)]
    dot = weight.to(dtype).double() @ x[dice.choices.randrange(len(x))].to(dtype).double()
    aim = torch.tensor([dice.choices.choice(ends) for _ in weight], dtype=torch.float64)
    unit = dice.choices.choice([2.0**-24, 2.0**-20, 2.0**-11, 2.0**-8])
    nudge = torch.randn(len(weight), generator=dice.generator, dtype=torch.float64) * unit
    most = torch.finfo(dtype).max
    return (aim - dot + nudge * (aim.abs() + dot.abs())).clamp(-most, most)


def _linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=bias is not None)
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    layer.out_features, layer.in_features = weight.shape
    return layer


def _inputs(dice: Dice, x: Tensor) -> Tensor:
    """With NaN and infinity at times, and in one of the layouts that torch treats differently."""
    if dice.chance(0.15):
        for _ in range(dice.choices.randint(1, 3)):
            row, column = dice.choices.randrange(len(x)), dice.choices.randrange(x.shape[1])
            x[row, column] = dice.choices.choice([math.nan, math.inf, -math.inf])
    layout = dice.choices.randrange(4)
    if layout == 1:
        return x.reshape(1, *x.shape)
    if layout >= 2:  # strided
        wide = torch.cat([x, torch.zeros_like(x)], 1)[:, : x.shape[1]]
        return wide if layout == 2 else wide[None]
    return x
