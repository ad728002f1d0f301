"""What every solver returns, and what it knows about its Gram matrix."""

from __future__ import annotations

import dataclasses

from lazyneuron.learn.bounds.bound import TEXTBOOK, Bound
from lazyneuron.ops.array import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeastEigenvalue:
    """The least eigenvalue of the Gram matrix over m, from both sides.

    Attributes:
        bound: what it is at least.
        at_most: what it is at most, without failure: the matrix takes this value on a unit vector.
    """

    bound: Bound
    at_most: float

    def against(self, wanted: float) -> str:
        """Where it lies, for a number that is not proved."""
        low, high = self.bound.value, self.at_most
        known = f"is {low:.2g}" if low == high else f"lies from {low:.2g} to {high:.2g}"
        return f"{known}, {'below' if high < wanted else 'not proved to reach'} the {wanted:g}"

    @staticmethod
    def exact(value: float) -> LeastEigenvalue:
        """Of a matrix whose eigenvalues were computed."""
        value = max(value, 0.0)
        bound = Bound(
            value=value,
            assumptions=("up to rounding",),
            source="all of the Gram matrix",
            provenance=TEXTBOOK,
            vacuous=value == 0,
        )
        return LeastEigenvalue(bound=bound, at_most=value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solution:
    """A fitted polynomial.

    Attributes:
        coefficients: in graded colex order, shape (N,), or None when only the dual ones are kept.
        gram: the least eigenvalue of the Gram matrix over m, or None where the solver does not look at it.
        method: what was done.
        dual: coefficients of the kernel at the training rows, shape (m,), and
        constant: what is added to the kernel's prediction.
    """

    coefficients: Array | None
    gram: LeastEigenvalue | None
    method: str
    dual: Array | None = None
    constant: float = 0.0
