"""Fuzz of quantised blocks: ``python -m tests.accelerate.fuzz.quantised --blocks 5000 --seed 0``.

Made blocks of any scale are quantised and run at every level; a float64 evaluation of what the bytes mean, with what
the grid of the inputs and float32 sums may add, says what their output, and the number of neurons that fire, can be.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace

import torch
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.ops.quantised import operators
from lazyneuron.ops.quantised.format import GROUPS, Columns, Format, Rows, quantise_columns, quantise_rows
from tests.accelerate.fuzz.bounds import Range, _output, activated, product, sums
from tests.accelerate.fuzz.case import DTYPES, Dice, _activation, _bias, _inputs, _offsets
from tests.accelerate.fuzz.command import arguments, fuzz
from tests.accelerate.fuzz.judge import levels

WIDTHS, HIDDEN, OUT, TOKENS = (1, 3, 37, 64, 130, 320), (1, 7, 64, 65, 200), (1, 5, 33, 96), (1, 2, 5, 17, 66, 130)
HALF_STEP = 0.51 / 32512  # of a token's grid, over its largest entry
SEGMENT = 256  # neurons that share a grid before int4 `down`
ERROR = {torch.float32: 2.0**-29, torch.bfloat16: 2.0**-15, torch.float16: 2.0**-15}  # of its numbers, over the largest
OUTPUT, COUNTS, BITS, ALONE = "output", "neurons that fire", "bits of every neuron", "a token's bits alone"
Linear = tuple[Rows, Tensor | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A quantised block with inputs; ``x`` is (..., d_in), of any layout, with NaN and infinity at times."""

    first: Linear
    up: Linear | None
    down: tuple[Columns, Tensor | None]
    activation: Activation
    rectify_up: bool
    x: Tensor

    def run(self, x: Tensor, *, isa: int, every: bool = False) -> tuple[Tensor, Tensor]:
        """The operator's output, and what it counted."""
        counts = torch.zeros(4, dtype=torch.int64)
        arguments = operators.block_arguments(
            self.first, self.down, activation=self.activation, counts=counts, up=self.up, rectify_up=self.rectify_up,
            every=every, isa=isa,
        )  # fmt: skip
        return operators.mlp(x, *arguments), counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What any evaluation gives: bounds of y, for which tokens, and the least and the most pairs that fire."""

    y: Range
    clean: Tensor
    fires: tuple[int, int]


def make_case(seed: int, index: int) -> Case:
    """The case of that number; the same on every machine."""
    dice = Dice(seed, index)
    pick = dice.choices.choice
    form = Format(bits=pick((8, 4)), group=pick(GROUPS))
    dtype, gated = pick(DTYPES), dice.chance(0.5)
    step = 1 if form.bits == 8 else form.group
    d_in, out = (-(-pick(sizes) // step) * step for sizes in (WIDTHS, OUT))
    hidden, tokens, activation = pick(HIDDEN), pick(TOKENS), _activation(dice)
    x = dice.numbers(tokens, d_in, dtype)
    first = quantise_rows(dice.numbers(hidden, d_in, dtype).to(dtype), form)
    offset = _offsets(dice, first.dequantised(torch.float64), x, dtype, activation)
    up = quantise_rows(dice.numbers(hidden, d_in, dtype).to(dtype), form)
    down = quantise_columns(dice.numbers(out, hidden, dtype).to(dtype), form)

    def stored(bias: Tensor | None) -> Tensor | None:
        return None if bias is None else bias.to(dtype)

    return Case(
        first=(first, stored(offset)),
        up=(up, stored(_bias(dice, hidden, dtype))) if gated else None,
        down=(down, stored(_bias(dice, out, dtype))),
        activation=activation,
        rectify_up=gated and dice.chance(0.3),
        x=_inputs(dice, x.to(dtype)),
    )


def known(case: Case) -> Known:
    """Intervals in float64."""
    tokens = case.x.reshape(-1, case.x.shape[-1]).double()

    def layer(of: Linear) -> Range:
        weight = of[0].dequantised(torch.float64)
        grid = HALF_STEP * tokens.abs().amax(1, keepdim=True) * weight.abs().sum(1)
        return sums(tokens, weight, of[1], grid)

    h, _ = activated(case.activation, layer(case.first), torch.float32)
    if case.up is not None:
        u = layer(case.up)
        if case.rectify_up:
            u = Range(low=u.low.relu(), high=u.high.relu(), overflows=u.overflows)
        h = product(h, u, torch.float32)
    down = case.down[0].dequantised(torch.float64)
    y, finite, _ = _output(h, down, SimpleNamespace(dtype=case.x.dtype, down_bias=case.down[1]))
    if case.down[0].format.bits == 4:
        y = widened(y, ERROR[case.x.dtype] * _grid_errors(h, case.down[0]))
    clean = finite & torch.isfinite(tokens).all(1)
    # a value below the smallest normal number, or one that its neuron's scale brings there, may be dropped
    scale = case.down[0].scale.double().abs() if case.down[0].format.bits == 8 else torch.ones(len(down))
    tiny = 2.0**-120
    surely = ((h.low * scale > tiny) | (h.high * scale < -tiny)) & clean[:, None]
    never = (h.low == 0) & (h.high == 0) & clean[:, None]
    return Known(y=y, clean=clean, fires=(int(surely.sum()), int((~never).sum())))


def _grid_errors(h: Range, down: Columns) -> Tensor:
    """What one unit of the errors on the grid of activations times scales changes in the output, (tokens, d_out)."""
    size = torch.maximum(h.low.abs(), h.high.abs())
    error: Tensor | float = 0.0
    for values, scale in zip(size.split(SEGMENT, 1), down.scale.double().abs().split(SEGMENT), strict=True):
        largest = (values[:, :, None] * scale).amax(1)  # (tokens, groups)
        error = error + 8 * (values != 0).sum(1, keepdim=True) * largest
    return torch.as_tensor(error).repeat_interleave(down.format.group, 1)


def widened(y: Range, error: Tensor) -> Range:
    """With an error before the last rounding."""
    return dataclasses.replace(y, low=y.low - 1.02 * error, high=y.high + 1.02 * error)


Fault = Callable[[Case], Case]


def judge(case: Case, fault: Fault | None = None) -> Iterator[tuple[str, str, int]]:
    """Level, fault and how often, for every level; ``fault`` changes what runs, to see that it is noticed."""
    facts = known(case)
    case = case if fault is None else fault(case)
    for isa in sorted({isa for isa, _ in levels()}):
        got, counts = case.run(case.x, isa=isa)
        flat = got.reshape(-1, got.shape[-1])
        within = (flat.double() >= facts.y.low) & (flat.double() <= facts.y.high)
        wrong = {OUTPUT: int((~within)[facts.clean].sum())}
        wrong[COUNTS] = int(not facts.fires[0] <= int(counts[1]) <= facts.fires[1])
        every = case.run(case.x, isa=isa, every=True)[0].reshape(flat.shape)
        wrong[BITS] = differing(flat[facts.clean], every[facts.clean])  # elsewhere 0 times infinity is not read
        tokens = case.x.reshape(-1, case.x.shape[-1])
        chosen = sorted({0, len(tokens) // 2, len(tokens) - 1})
        alone = torch.cat([case.run(tokens[k : k + 1], isa=isa)[0] for k in chosen])
        wrong[ALONE] = differing(flat[chosen], alone)
        for what, times in wrong.items():
            yield str(isa), what, times


def differing(a: Tensor, b: Tensor) -> int:
    """Numbers that are not the same; NaN is NaN, and zeros of both signs are zero."""
    a, b = a.double(), b.double()
    return int((~((a == b) | (a.isnan() & b.isnan()))).sum())


@dataclasses.dataclass
class Tally:
    """Figures of a run, and the numbers of the cases that failed."""

    blocks: int = 0
    tokens: int = 0
    pairs: int = 0
    fired: int = 0
    wrong: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    failures: list[str] = dataclasses.field(default_factory=list)


def run(seed: int, indices: Iterable[int], fault: Fault | None = None) -> Tally:
    """Judge the cases of these numbers."""
    tally = Tally()
    for index in indices:
        case = make_case(seed, index)
        facts = known(case)
        tally.blocks += 1
        tally.tokens += int(facts.clean.sum())
        tally.pairs += len(facts.clean) * len(case.down[0].bytes)
        tally.fired += facts.fires[0]
        for level, what, times in judge(case, fault):
            if times:
                tally.wrong[level, what] += times
                tally.failures.append(
                    f"block {index}, level {level}: {what}, {times} times ({case.first[0].format}, {case.x.dtype}, "
                    f"{case.activation}, gated {case.up is not None}, rectified {case.rectify_up}, x "
                    f"{tuple(case.x.shape)}, hidden {len(case.down[0].bytes)})"
                )
    return tally


def _said(tally: Tally) -> str:
    return (
        f"{tally.blocks} blocks, {tally.tokens} tokens compared, {tally.pairs} pairs of which {tally.fired} surely fire"
    )


if __name__ == "__main__":
    sys.exit(fuzz(arguments("tests.accelerate.fuzz.quantised", __doc__), run, _said))
