"""Conjugate gradients: linear systems from products with their matrix alone, for arrays and for tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Iterate(NamedTuple):
    """Where conjugate gradients ended.

    Attributes:
        found: the solution so far, shaped like the right side.
        steps: products that were taken.
        reduction: the largest squared residual over the squared right side; 0 for a right side of 0.
    """

    found: Any
    steps: int
    reduction: float


def conjugate_gradients(
    product: Callable[[Any], Any], right: Any, *, inner: Callable[[Any, Any], Any], steps: int, tolerance: float
) -> Iterate:
    """Solve ``M x = right`` for a symmetric positive definite M, for several right sides at once where there are.

    Args:
        product: ``M d`` of an array or tensor shaped like ``right``.
        right: the right side, or one in each column.
        inner: inner product of two such; one number, or one for each column.
        steps: at most so many.
        tolerance: relative residual at which they end.

    Source: Hestenes, Stiefel (1952).
    """
    found, residual, direction = right - right, right, right
    first = square = inner(right, right)
    taken = 0
    while taken < steps and (square > tolerance**2 * first).any():
        image = product(direction)
        step = square / inner(direction, image).clip(min=1e-300)
        found = found + step * direction
        residual = residual - step * image
        after = inner(residual, residual)
        direction = residual + after / square.clip(min=1e-300) * direction
        square, taken = after, taken + 1
    return Iterate(found, taken, float((square / first.clip(min=1e-300)).max()))
