"""What every solver returns."""

from __future__ import annotations

import dataclasses

from lazyneuron.learn.solvers.lanczos import LeastEigenvalue
from lazyneuron.ops.boolean.array import Array


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
