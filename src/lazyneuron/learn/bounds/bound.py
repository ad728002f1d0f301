"""What a theorem says: a number, with everything that has to be known before it is believed."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

Provenance = Literal["quoted", "unreviewed manuscript", "textbook", "ours, not peer reviewed", "conjecture, not proved"]
OURS: Provenance = "ours, not peer reviewed"
QUOTED: Provenance = "quoted"
TEXTBOOK: Provenance = "textbook"
UNREVIEWED: Provenance = "unreviewed manuscript"
CONJECTURE: Provenance = "conjecture, not proved"
UNIFORM = "inputs uniform on the cube"
SPARSE_EVERYWHERE = "at most k neurons active at every point of the cube"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """The value of a theorem.

    Attributes:
        value: the number; infinite where it, or a number on the way to it, leaves the range of floating point.
        assumptions: what must hold.
        failure_probability: with which it may fail; 0 when it is certain under the assumptions.
        source: where it stands.
        provenance: who vouches for it.
        vacuous: True when a trivial bound is at least as good, as it is where the value is infinite.
    """

    value: float
    assumptions: tuple[str, ...]
    source: str
    provenance: Provenance
    failure_probability: float = 0.0
    vacuous: bool = False

    def __post_init__(self) -> None:
        if self.value in (math.inf, -math.inf):
            object.__setattr__(self, "vacuous", True)

    def __str__(self) -> str:
        chance = f", with probability {1 - self.failure_probability:g}" if self.failure_probability else ""
        empty = " VACUOUS: a trivial bound is at least as good." if self.vacuous else ""
        return f"{self.value:.6g} if {'; '.join(self.assumptions)}{chance} [{self.source}; {self.provenance}].{empty}"
