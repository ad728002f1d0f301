"""How the work of a step is cut into programs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch

FEW = 16  # tokens that share a tile on the tensor cores
_PROGRAMS_A_PROCESSOR = 4  # of `down`, so that scattered rows are waited for side by side
_LONGEST = 2048  # neurons of a segment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiles:
    """Powers of two, but for ``segments``.

    Attributes:
        neurons: of a program of `first`.
        inputs: that it multiplies at once (bytes, of 4-bit rows).
        columns: of a program of `down`.
        rows: that it adds at once.
        segments: among which the neurons are shared in `down`.
        warps: of a program.
    """

    neurons: int = 16
    inputs: int = 256
    columns: int = 128
    rows: int = 32
    segments: int = 1
    warps: int = 4

    def numbers(self) -> list[int]:
        """As the operators take them."""
        return list(dataclasses.astuple(self))

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Tiles:
        """The inverse of :meth:`numbers`."""
        return cls(**dict(zip((field.name for field in dataclasses.fields(cls)), numbers, strict=True)))

    def length(self, hidden: int) -> int:
        """Neurons of a segment: a power of two of which ``segments`` hold them all."""
        return max(_power(-(-hidden // self.segments)), self.rows)


def tiles_for(*, tokens: int, hidden: int, d_out: int, bits: int, device: torch.device) -> Tiles:
    """What fits a shape on a device, before anything is measured there."""
    columns = min(128, max(32, _power(d_out)))
    programs = -(-d_out // columns)
    wanted = max(1, _PROGRAMS_A_PROCESSOR * _processors(device) // programs)
    length = _power(-(-hidden // min(wanted, 16)))
    length = min(max(length, 64), _LONGEST)
    # what more inputs at once would need beside the tiles of tensor cores, and beside unpacked nibbles, are registers
    inputs = (256 if tokens == 1 else 128) if bits != 4 else (128 if tokens == 1 else 64)
    return Tiles(inputs=inputs, columns=columns, segments=max(1, -(-hidden // length)))


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def _power(number: int) -> int:
    """The least power of two that is not below."""
    return 1 << max(number - 1, 0).bit_length()
