"""Runs one case at every level and compares with torch's dense block and with the bounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.induce.activations.jsrelu import JSReLU
from lazyneuron.ops.native.build import ISA_LEVELS
from lazyneuron.ops.sparse_mlp import gather, native, reference
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS, PackedBlock
from tests.accelerate.fuzz.bounds import SMALLEST, Bounds, bounds
from tests.accelerate.fuzz.case import Case
from tests.kernels import LEVELS

Fault = Callable[[PackedBlock], PackedBlock]
WRONG_SKIP, OUTPUT, PATTERN = "skips what may fire", "output out of bounds", "NaN or infinity elsewhere than dense"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of one case on one path.

    Attributes:
        path: ISA level and planes, "gather", "dense", or "definition" of the certificate's in float64.
        pairs, skipped: (token, neuron) pairs, and those that were proved silent.
        compared: tokens whose output was compared, with bounds or by the pattern of what is not finite.
        faults: what is wrong -> how often.
    """

    path: str
    pairs: int
    skipped: int
    compared: int
    faults: dict[str, int]


def dense(block: MLPBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """The deciding activation and the output, as torch's modules compute them."""
    act, first = block.activation, block.first
    function = JSReLU(act.parameters[0], act.parameters[1]) if act.kind == "jsrelu" else act
    s = function(F.linear(x, first.weight, first.bias))
    h = s
    if block.gate is not None:
        up = F.linear(x, block.up.weight, block.up.bias)
        h = s * (F.relu(up) if block.rectifies_up else up)
    return s, F.linear(h, block.down.weight, block.down.bias)


def skipped(packed: PackedBlock, x: Tensor, *, isa: int, planes: int) -> Tensor:
    """Which pairs the kernel proves silent: it is given rows of zeros, so that what it computes is the bias, never 0.

    A bias that may be taken for zero becomes the least normal number; the slack has room for that.
    """
    hidden = packed.d_hidden
    certificate = packed.sketch.certificate.clone()
    bias = certificate[1, :hidden]
    bias[bias.abs() < SMALLEST] = -SMALLEST
    zero = packed.zero
    rows, eye = torch.zeros(hidden, packed.d_in), torch.eye(hidden)
    kind, parameters = KERNEL_ACTIVATIONS.index("fatrelu"), (-math.inf, 0.0)
    before = (packed.sketch.panels, certificate, rows, None, None, False, eye, None)
    after = (kind, *parameters, zero.left, zero.low, zero.high, planes, isa)
    counts = native.new_counts()
    seen = native.op()(x, *before, counts, *after)
    bad = ~torch.isfinite(x).all(1)
    if bool(bad.any()):  # their rows are NaN throughout, whatever was skipped
        counts = native.new_counts()
        native.op()(x[bad].contiguous(), *before, counts, *after)
        assert int(counts[0]) == int(bad.sum()) * hidden, "something is certified for an input that is not finite"
    return seen == 0


def judge(case: Case, fault: Fault | None = None) -> Iterator[Verdict]:
    """Verdicts of a case: torch's own dense output, the gather path, and the kernels at every level.

    Args:
        case: from :func:`make_case`.
        fault: what to do to the packed block before it runs, to see that it is noticed.
    """
    torch.set_flush_denormal(case.flush)
    try:
        packed = pack(case.block)
        tokens = case.x.reshape(-1, packed.d_in).contiguous()
        torch.set_flush_denormal(False)
        known = bounds(packed, tokens)
        torch.set_flush_denormal(case.flush)
        deciding, wanted = dense(case.block, case.x)
        deciding, wanted = deciding.reshape(len(tokens), -1), wanted.reshape(len(tokens), -1)
        run = packed if fault is None else fault(packed)
        fires = (deciding != 0) | torch.isnan(deciding)
        proved = reference.certified_silent(run.sketch, tokens, run.zero)
        yield _verdict("dense", known, wanted, wanted, None, fires)
        yield _verdict("definition", known, wanted, wanted, proved, fires)
        yield _verdict("gather", known, gather.sparse_mlp(run, case.x), wanted, None, fires)
        wide = tokens.float()
        for isa, planes in levels():
            got = native.sparse_mlp(run, case.x, isa=isa, planes=planes)
            silent = skipped(run, wide, isa=isa, planes=planes)
            yield _verdict(f"{ISA_LEVELS[isa]}-{planes}", known, got, wanted, silent, fires)
    finally:
        torch.set_flush_denormal(False)


def levels() -> list[tuple[int, int]]:
    """Numbers of the ISA levels that run here, with the planes that make a difference there."""
    return [(isa, planes) for isa in LEVELS for planes in ((2, 1) if isa == 3 else (2,))]


def _verdict(path: str, known: Bounds, got: Tensor, wanted: Tensor, silent: Tensor | None, fires: Tensor) -> Verdict:
    got, wanted = got.reshape(wanted.shape).double(), wanted.double()
    faults = {}
    if silent is not None:
        faults[WRONG_SKIP] = int((silent & (fires | ~known.silent | ~known.safe)).sum())
    within = (got >= known.y.low) & (got <= known.y.high)
    faults[OUTPUT] = int((~within)[known.clean].sum())
    marks = [torch.stack([t.isnan(), t == math.inf, t == -math.inf]) for t in (got, wanted)]
    faults[PATTERN] = int((marks[0] != marks[1]).any(0)[known.settled].sum())
    return Verdict(
        path=path,
        pairs=0 if silent is None else silent.numel(),
        skipped=0 if silent is None else int(silent.sum()),
        compared=int((known.clean | known.settled).sum()),
        faults={name: count for name, count in faults.items() if count},
    )
