"""The ends of a Gram matrix's spectrum from products with it, with proof."""

from __future__ import annotations

import dataclasses

import numpy as np

from lazyneuron.learn.bounds.eigenvalues import largest_eigenvalue_bound, least_eigenvalue_bound
from lazyneuron.learn.solvers.solution import LeastEigenvalue
from lazyneuron.ops.boolean.design import WalshDesign

_DELTA = 1e-6
_MOST_STEPS = 60
_ENTRIES = 1 << 27  # numbers of the basis that is kept
_NEAR = 0.02  # how far apart the two sides may stay


class Lanczos:
    """Steps of Lanczos' method on ``Phi^T Phi / m`` from a random vector, with full reorthogonalisation.

    Attributes:
        diagonal, beside: coefficients so far; the last of ``beside`` is the norm of the residual.

    Args:
        design: the features.
        steps: room for so many; fewer where the basis would take more than a GiB.
        seed: of the start.

    Source: Lanczos (1950).
    """

    def __init__(self, design: WalshDesign, *, steps: int, seed: int = 0) -> None:
        self._design = design
        room = max(min(steps, design.size, _ENTRIES // design.size), 1)
        self._basis = np.empty((room + 1, design.size))
        start = np.random.default_rng(seed).standard_normal(design.size)
        self._basis[0] = start / np.linalg.norm(start)
        self.diagonal: list[float] = []
        self.beside: list[float] = []

    @property
    def exhausted(self) -> bool:
        """Whether no step is left, for want of room or because the space is invariant."""
        full = len(self.diagonal) == len(self._basis) - 1
        return full or (bool(self.beside) and self.beside[-1] <= 1e-12 * max(self.diagonal))

    def step(self) -> None:
        """One more product with the matrix."""
        at = len(self.diagonal)
        here = self._basis[at]
        image = self._design.analysis(self._design.synthesis(here)) / self._design.m
        self.diagonal.append(float(here @ image))
        before = self._basis[: at + 1]
        for _ in range(2):  # once leaves what rounding brought back
            image = image - before.T @ (before @ image)
        norm = float(np.linalg.norm(image))
        self.beside.append(norm)
        self._basis[at + 1] = image / norm if norm else 0.0

    def least(self) -> LeastEigenvalue:
        """What the steps so far prove."""
        from scipy.linalg import eigvalsh_tridiagonal

        bound = least_eigenvalue_bound(self.diagonal, self.beside, size=self._design.size, delta=_DELTA)
        ritz = float(eigvalsh_tridiagonal(np.array(self.diagonal), np.array(self.beside[:-1]))[0])
        return LeastEigenvalue(bound=dataclasses.replace(bound, value=max(bound.value, 0.0)), at_most=max(ritz, 0.0))


def least_eigenvalue(design: WalshDesign, *, wanted: float) -> LeastEigenvalue:
    """The least eigenvalue of ``Phi^T Phi / m``, until it is proved to be at least ``wanted`` or is known closely.

    Args:
        design: the features.
        wanted: what is enough.

    Cost: two products with the design for each of at most 60 steps, and their vectors.
    """
    steps = Lanczos(design, steps=_MOST_STEPS)
    while True:
        steps.step()
        found = steps.least()
        near = found.at_most < wanted and found.at_most - found.bound.value <= _NEAR
        if steps.exhausted or near or found.bound.value >= wanted:
            return found


def largest_eigenvalue(design: WalshDesign, *, steps: int) -> float:
    """What the largest eigenvalue of ``Phi^T Phi / m`` is at most, but with probability 1e-6."""
    made = Lanczos(design, steps=steps)
    while not made.exhausted:
        made.step()
    return largest_eigenvalue_bound(made.diagonal, made.beside, size=design.size, delta=_DELTA).value


def basis_bytes(size: int) -> float:
    """Memory of :func:`least_eigenvalue` with so many features."""
    return 8.0 * min((_MOST_STEPS + 1) * size, max(_ENTRIES, 2 * size))
