"""Fuzz through OpenVINO: ``python -m tests.export.fuzz --blocks 5000 --seed 0``.

The made blocks of the other fuzzes, each as the one operator of a graph. Outputs have to lie within the bounds of a
float64 evaluation, and to have the bits that torch's operator has at this level: the kernels are the same source.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.export.openvino.layout import PackedOperator, packed_operator
from lazyneuron.ops.quantised import operators
from lazyneuron.ops.quantised.format import Format, quantise_columns, quantise_rows
from lazyneuron.ops.sparse_mlp import native
from tests.accelerate.fuzz.bounds import bounds
from tests.accelerate.fuzz.case import make_case
from tests.accelerate.fuzz.command import arguments, fuzz
from tests.accelerate.fuzz.quantised import Case as QuantisedCase
from tests.accelerate.fuzz.quantised import differing, known
from tests.export.openvino import run_packed

OUTPUT, BITS = "output out of bounds", "other bits than torch's operator"
FEW = 8  # tokens up to which x has two planes, as in csrc/openvino/extension.cpp
Fault = Callable[[PackedOperator], PackedOperator]
Judged = tuple[Tensor, Tensor, Tensor, Tensor]  # bits, bounds, and the tokens that they hold for


@dataclasses.dataclass
class Tally:
    """Figures of a run."""

    blocks: int = 0
    tokens: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)


def run(seed: int, indices: Iterable[int], fault: Fault = lambda packed: packed) -> Tally:
    """Judge the cases of these numbers; ``fault`` changes what is exported, to see that it is noticed."""
    tally = Tally()
    for index in indices:
        case = make_case(seed, index)
        x = case.x.reshape(-1, case.block.d_in).contiguous()
        tally.blocks += 1
        for weights in ("keep", "int8") if _has_int8_beside_torch(case.block) else ("keep",):
            got = run_packed(fault(packed_operator(case.block, weights)), x).to(x.dtype)
            wanted, low, high, clean = _kept(case.block, x) if weights == "keep" else _int8(case.block, x)
            tally.tokens += int(clean.sum())
            within = (got.double() >= low) & (got.double() <= high)
            wrong = {OUTPUT: int((~within)[clean].sum()), BITS: differing(got, wanted)}
            about = f"block {index}, {weights}, {x.dtype}, {case.block.activation}, gated {case.block.gate is not None}"
            tally.failures += [f"{about}: {what}, {times} times" for what, times in wrong.items() if times]
    return tally


def _has_int8_beside_torch(block: MLPBlock) -> bool:
    """Plain blocks in int8 run on 8 bits a token, as no operator of torch's does; `test_operator.py` defines it."""
    return block.gate is not None and block.up.weight.dtype == torch.float32


def _kept(block: MLPBlock, x: Tensor) -> Judged:
    packed = pack(block)
    facts = bounds(packed, x)
    wanted = native.sparse_mlp(packed, x, planes=2 if len(x) <= FEW else 1)
    return wanted, facts.y.low, facts.y.high, facts.clean


def _int8(block: MLPBlock, x: Tensor) -> Judged:
    form = Format(bits=8)
    case = QuantisedCase(
        first=(quantise_rows(block.first.weight, form), block.first.bias),
        up=None if block.gate is None else (quantise_rows(block.up.weight, form), block.up.bias),
        down=(quantise_columns(block.down.weight, form), block.down.bias),
        activation=block.activation,
        rectify_up=block.rectifies_up,
        x=x,
    )
    facts = known(case)
    operators.operators()
    wanted, _ = case.run(x, isa=-1)
    return wanted, facts.y.low, facts.y.high, facts.clean


def _said(tally: Tally) -> str:
    return f"{tally.blocks} blocks, {tally.tokens} tokens compared"


if __name__ == "__main__":
    sys.exit(fuzz(arguments("tests.export.fuzz", __doc__), run, _said))
