"""What regression in hashed buckets can be told."""

from __future__ import annotations

import dataclasses
import math

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import ConfigError
from lazyneuron.route.bucket_widths import DIRECTIONS
from lazyneuron.route.pyramid import MOST


@dataclasses.dataclass(frozen=True, kw_only=True)
class BucketSettings:
    """What :class:`lazyneuron.route.bucket_regression.BucketRegression` is to do.

    Attributes:
        hashes: directions of one table; None takes the number of features, at most 8.
        tables: independent tables, whose predictions are averaged.
        degree: 0 a constant, 1 an affine function for each bucket; None is 1 for up to 16 features, else 0.
        shrinkage: rows that the coarser scale's prediction counts for in a bucket.
        scale: None chooses the width on held-out rows; a number fixes it: buckets of ``8 * 2**-scale`` deviations.
        directions: ``"gaussian"``, ``"orthogonal"`` or ``"learned"``.
        capacity: most buckets of a table.
        held_out: share of rows that choose the width, at most 16384 rows.
        seed: of hashes and held-out rows.
        impl: ``"auto"``, ``"native"`` or ``"python"``.
    """

    hashes: int | None = None
    tables: int = 1
    degree: int | None = None
    shrinkage: float = 1.0
    scale: int | None = None
    directions: str = "learned"
    capacity: int = 1 << 20
    held_out: float = 0.1
    seed: int = 0
    impl: str = "auto"

    def __post_init__(self) -> None:
        check_choice("directions", self.directions, DIRECTIONS)
        if self.tables < 1 or self.capacity < 1 or (self.hashes is not None and self.hashes < 1):
            raise ConfigError(
                f"Tables, hashes and capacity are at least 1, got {self.tables}, {self.hashes} and {self.capacity}."
            )
        if self.degree not in (None, 0, 1):
            raise ConfigError(f"degree is 0, 1 or None, got {self.degree!r}.")
        if not 0 <= self.shrinkage < math.inf or (self.degree != 0 and self.shrinkage == 0):
            raise ConfigError(f"shrinkage is not negative, and positive unless degree is 0, got {self.shrinkage}.")
        if self.scale is not None and not 0 <= self.scale <= MOST:
            raise ConfigError(f"scale is 0 to {MOST}, got {self.scale}.")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out is a fraction in [0, 1), got {self.held_out}.")
