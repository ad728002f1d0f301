"""What cases with the same weights share: the block, its packed form, and rates of the machine."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.blocks import MLPBlock
from lazyneuron.experiments.bench.blocks.case import Case
from lazyneuron.experiments.bench.blocks.ceilings import gemm_gflops, sketch_levels
from lazyneuron.experiments.bench.blocks.certified import at_density
from lazyneuron.experiments.bench.blocks.synthetic import make_block, make_calibration, set_density_
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

_PACKED_AT = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """Weights of some shape, dtype and kind, at some number of threads.

    Attributes:
        case: the case that they were made for.
        block: its bias is set to each case's density in place.
        base: packed once; :meth:`packed_for` moves its bias.
        moved: density -> the packed form with its bias.
        levels: the sketch's integers as float32.
        calibration: tokens to fit on.
        gflops: of a plain matrix product.
    """

    case: Case
    block: MLPBlock
    base: PackedBlock
    levels: Tensor
    calibration: Tensor
    gflops: float
    moved: dict[float, PackedBlock] = dataclasses.field(default_factory=dict)

    def fits(self, case: Case) -> bool:
        """Are these the weights of another case?"""
        return self.case.weights_key == case.weights_key

    def packed_for(self, case: Case) -> PackedBlock:
        """Set the block's bias for a case, and return the packed form with the same bias."""
        set_density_(self.block, case.density)
        if case.density not in self.moved:
            self.moved[case.density] = at_density(self.base, case.density)
        return self.moved[case.density]


def prepare(case: Case) -> Prepared:
    """Make and pack the weights of a case.

    Raises:
        ImplUnavailable: the memory of this machine does not hold them.
    """
    block = make_block(case.shape, case.dtype, _PACKED_AT)
    packed = pack(block)
    return Prepared(
        case=case,
        block=block,
        base=packed,
        levels=sketch_levels(packed),
        calibration=make_calibration(case.shape, case.dtype),
        gflops=gemm_gflops(block),
    )
