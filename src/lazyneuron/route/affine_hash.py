"""The Euclidean hash family: parallel hyperplanes at equal distances, in random directions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import ConfigError, ShapeError
from lazyneuron.ops.buckets.operators import LANES, hash_rows, native_ops


@dataclasses.dataclass(frozen=True, kw_only=True)
class AffineHash:
    """``h_i(x) = floor((a_i . x + b_i) / width)`` for i = 1 .. hashes.

    With ``shift`` the same hyperplanes give wider buckets, each the union of 2**shift neighbours along every hash: the
    scales are nested exactly, in integers.

    Attributes:
        directions: (features, hashes) float64, the a_i.
        offsets: (hashes,) float64, the b_i in [0, width).
        width: distance of neighbouring hyperplanes.

    Source: Baykal et al. (2022), section 4; the nesting is ours.
    """

    directions: Tensor
    offsets: Tensor
    width: float

    def __post_init__(self) -> None:
        if not (self.width > 0 and math.isfinite(self.width)):
            raise ConfigError(f"The width of buckets is a positive number, got {self.width}.")
        hashes = self.directions.shape[1]
        padded = -(-hashes // LANES) * LANES
        w = torch.zeros(self.features, padded, dtype=torch.float64)
        w[:, :hashes] = self.directions / self.width
        b = torch.zeros(padded, dtype=torch.float64)
        b[:hashes] = self.offsets / self.width
        object.__setattr__(self, "w", w)
        object.__setattr__(self, "b", b)

    w: Tensor = dataclasses.field(init=False, repr=False, default=torch.empty(0))
    b: Tensor = dataclasses.field(init=False, repr=False, default=torch.empty(0))

    @property
    def features(self) -> int:
        """Length of an input."""
        return int(self.directions.shape[0])

    @property
    def hashes(self) -> int:
        """Integers that name a bucket."""
        return int(self.directions.shape[1])

    def vectors(self, x: Tensor, *, shift: int = 0, impl: str = "auto") -> Tensor:
        """The bucket of each row.

        Args:
            x: (rows, features), float32 or float64.
            shift: width in powers of two of the own one.
            impl: ``"auto"``, ``"native"`` or ``"python"``.

        Returns:
            (rows, hashes) int32.

        Raises:
            ShapeError: rows of another length, or not floating point.
            DataError: NaN, infinity, or a bucket number above 32 bits.

        Cost: ``2 features hashes`` FLOPs a row.
        """
        if x.ndim != 2 or x.shape[1] != self.features or x.dtype not in (torch.float32, torch.float64):
            raise ShapeError(
                f"Rows of {self.features} numbers in float32 or float64 are hashed, got {x.dtype} of shape "
                f"{tuple(x.shape)}."
            )
        return hash_rows(x.detach(), self.w, self.b, hashes=self.hashes, shift=shift, ops=native_ops(impl))

    def to_tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` takes."""
        return {
            "directions": self.directions.contiguous(),
            "offsets": self.offsets.contiguous(),
            "width": torch.tensor([self.width], dtype=torch.float64),
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Any]) -> AffineHash:
        """The hash that :meth:`to_tensors` wrote."""
        return AffineHash(
            directions=tensors["directions"], offsets=tensors["offsets"], width=float(tensors["width"][0])
        )


def random_hash(
    features: int, hashes: int, *, width: float, generator: torch.Generator, orthogonal: bool = False
) -> AffineHash:
    """Directions and offsets by chance.

    Args:
        features: length of an input.
        hashes: number of directions.
        width: distance of neighbouring hyperplanes.
        generator: the random numbers' source.
        orthogonal: draw directions of unit length, each block of ``features`` of them at right angles (ours: buckets
            are then cubes, without the thin slivers of independent directions); otherwise standard normal ones.

    Returns:
        The hash.

    Raises:
        ConfigError: a number below 1, or a width that is not positive.
    """
    if features < 1 or hashes < 1:
        raise ConfigError(f"At least one feature and one hash are needed, got {features} and {hashes}.")
    normal = torch.randn(features, hashes, generator=generator, dtype=torch.float64)
    if orthogonal:
        blocks = [torch.linalg.qr(part)[0] for part in torch.split(normal, features, dim=1)]
        normal = torch.cat(blocks, dim=1)
    offsets = width * torch.rand(hashes, generator=generator, dtype=torch.float64)
    return AffineHash(directions=normal, offsets=offsets, width=width)
