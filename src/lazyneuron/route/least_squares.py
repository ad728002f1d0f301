"""The top layer of a sparse model in closed form: ridge regression on the units that answered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lazyneuron.core.errors import ConfigError, DataError
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
    """
    if not len(x):
        raise DataError("There is no row to learn from; pass at least one.")
    if model.router.width <= WIDEST_GRAM:
        sums = TopStatistics(model)
        sums.add(x, y)
        return sums.solve(ridge=ridge)
    at_once = max(1, _NUMBERS // (model.router.active * (1 + model.router.features)))
    parts = [units(model, part) for part in torch.split(x, at_once)]
    return _without_a_matrix(parts, y.to(torch.float64), model.router.width, max(ridge, 1e-10), iterations, tolerance)


def _without_a_matrix(
    parts: Sequence[tuple[Tensor, Tensor]], y: Tensor, width: int, ridge: float, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    mean, n, sizes = y.mean(0), len(y), [len(values) for _, values in parts]
    centre = torch.zeros(width, dtype=torch.float64)
    for indices, values in parts:
        centre.index_add_(0, indices.flatten(), values.flatten())
    centre /= n

    def forward(a: Tensor) -> Tensor:
        return torch.cat([torch.einsum("ns,nso->no", values, a[at]) for at, values in parts]) - centre @ a

    def back(r: Tensor) -> Tensor:
        out = torch.zeros(width, r.shape[1], dtype=torch.float64)
        for (indices, values), part in zip(parts, torch.split(r, sizes), strict=True):
            out.index_add_(0, indices.flatten(), (values[:, :, None] * part[:, None, :]).flatten(0, 1))
        return out - centre[:, None] * r.sum(0)

    a = conjugate_gradients(
        lambda a: back(forward(a)) + ridge * n * a,
        back(y - mean),
        inner=lambda a, b: (a * b).sum(0),
        steps=iterations,
        tolerance=tolerance,
    ).found
    return a.t(), mean - centre @ a
