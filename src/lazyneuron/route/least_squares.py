"""The top layer of a sparse model in closed form: ridge regression on the units that answered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyneuron.core.errors import ConfigError, DataError, ImplUnavailable
from lazyneuron.ops.conjugate_gradients import conjugate_gradients
from lazyneuron.route.layers import DSM

_ROWS = 4096
_NUMBERS = 1 << 24  # of units and their weights that are made at a time
WIDEST_GRAM = 8192


class TopStatistics:
    """Additive sums for a model's top layer: gram matrix of the masked units, and their products with the target.

    Args:
        model: its router and bottom layer are read; its top layer is not.

    Raises:
        ConfigError: more than 8192 units, whose gram matrix would be too large.
    """

    def __init__(self, model: DSM) -> None:
        if model.router.width > WIDEST_GRAM:
            raise ConfigError(
                f"Streaming sums are kept for up to {WIDEST_GRAM} units, got {model.router.width}; "
                "use fewer units, or fit all rows at once."
            )
        width, outputs = model.router.width, model.top.shape[0]
        self.model = model
        self.gram = torch.zeros(width + 1, width + 1, dtype=torch.float64)
        self.right = torch.zeros(width + 1, outputs, dtype=torch.float64)
        self.rows = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows (rows, features) with targets (rows, outputs)."""
        for xs, ys in zip(torch.split(x, _ROWS), torch.split(y, _ROWS), strict=True):
            indices, values = units(self.model, xs)
            phi = torch.zeros(len(xs), self.model.router.width + 1, dtype=torch.float64)
            phi.scatter_add_(1, indices, values)
            phi[:, -1] = 1.0
            self.gram += phi.t() @ phi
            self.right += phi.t() @ ys.to(torch.float64)
            self.rows += len(xs)

    def solve(self, *, ridge: float) -> tuple[Tensor, Tensor]:
        """Top layer (outputs, units) and output bias (outputs,); the bias is not penalised."""
        penalty = torch.full((len(self.gram),), max(ridge, 1e-10) * max(self.rows, 1), dtype=torch.float64)
        penalty[-1] = 1e-12 * max(self.rows, 1)
        solved = torch.linalg.solve(self.gram + torch.diag(penalty), self.right)
        return solved[:-1].t(), solved[-1]


@torch.no_grad()
def units(model: DSM, x: Tensor) -> tuple[Tensor, Tensor]:
    """The units that answer for each row, (rows, s) int64, and their weighted values in float64."""
    indices, weights = model.router(x)
    return indices, (weights * model.features_of(x, indices)).to(torch.float64)


def solve_top(
    model: DSM, x: Tensor, y: Tensor, *, ridge: float = 1e-6, iterations: int = 200, tolerance: float = 1e-8
) -> tuple[Tensor, Tensor]:
    """The top layer that minimises the squared error plus ``ridge`` times its squared norm, per row.

    Up to 8192 units by the normal equations, above by conjugate gradients on the sparse units.

    Args:
        model: its router and bottom layer are read.
        x: (rows, features).
        y: (rows, outputs).
        ridge: penalty; not on the output bias.
        iterations: at most so many steps of conjugate gradients.
        tolerance: relative residual at which they stop.

    Returns:
        (outputs, units) and (outputs,), float64.

    Raises:
        DataError: no row.
        ImplUnavailable: above 8192 units, without SciPy.
    """
    if not len(x):
        raise DataError("There is no row to learn from; pass at least one.")
    if model.router.width <= WIDEST_GRAM:
        sums = TopStatistics(model)
        sums.add(x, y)
        return sums.solve(ridge=ridge)
    at_once = max(1, _NUMBERS // (model.router.active * (1 + model.router.features)))
    parts = (units(model, part) for part in torch.split(x, at_once))
    matrix = _rows_of(parts, len(x), active=model.router.active, width=model.router.width)
    return _without_a_gram(matrix, y.to(torch.float64), max(ridge, 1e-10), iterations, tolerance)


def _without_a_gram(matrix: Any, y: Tensor, ridge: float, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    mean, n = y.mean(0).numpy(), len(y)
    back = matrix.T
    centre = back @ np.full(n, 1 / n)

    def product(a: Any) -> Any:
        r = matrix @ a - centre @ a
        return back @ r - np.outer(centre, r.sum(0)) + ridge * n * a

    a = conjugate_gradients(
        product,
        back @ (y.numpy() - mean),
        inner=lambda a, b: (a * b).sum(0),
        steps=iterations,
        tolerance=tolerance,
    ).found
    return torch.from_numpy(np.ascontiguousarray(a.T)), torch.from_numpy(mean - centre @ a)


def _rows_of(parts: Iterable[tuple[Tensor, Tensor]], rows: int, *, active: int, width: int) -> Any:
    """A sparse matrix of the values of the units that answered, a row for each input."""
    try:
        from scipy.sparse import csr_array
    except ImportError as error:
        raise ImplUnavailable(
            f"More than {WIDEST_GRAM} units are fitted by SciPy; run pip install 'lazyneuron[learn]'."
        ) from error
    columns, values, done = np.empty((rows, active), np.int32), np.empty((rows, active)), 0
    for indices, own in parts:
        columns[done : done + len(indices)], values[done : done + len(indices)] = indices.numpy(), own.numpy()
        done += len(indices)
    starts = np.arange(rows + 1) * active
    return csr_array((values.ravel(), columns.ravel(), starts), shape=(rows, width))
