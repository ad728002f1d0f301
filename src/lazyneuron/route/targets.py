"""Target functions of the published experiments, and the inputs that lie on a subspace or a manifold."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.core.errors import ConfigError

Target = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Polynomial:
    """``sum_a c_a prod_i x_i^a_i`` over all exponents of at most some degree.

    Attributes:
        exponents: (terms, features) int64.
        coefficients: (terms,) with absolute values that add up to less than 1.
    """

    exponents: Tensor
    coefficients: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Values (rows,) at rows (rows, features)."""
        powers = torch.stack([x**k for k in range(int(self.exponents.max()) + 1)])  # (degree + 1, rows, features)
        y = torch.zeros(len(x), dtype=x.dtype)
        for exponent, coefficient in zip(self.exponents.tolist(), self.coefficients.tolist(), strict=True):
            term = torch.full((len(x),), coefficient, dtype=x.dtype)
            for feature, power in enumerate(exponent):
                if power:
                    term = term * powers[power, :, feature]
            y += term
        return y

    @property
    def lipschitz(self) -> float:
        """A bound of the slope on the cube [-1, 1]^d: the norm of the sums of ``|c_a| a_i``."""
        return float((self.coefficients.abs()[:, None] * self.exponents).sum(0).norm())


def random_polynomial(features: int, *, degree: int = 4, seed: int = 0) -> Polynomial:
    """All monomials up to a degree with uniform coefficients, whose absolute values are made to add up to 0.99.

    Raises:
        ConfigError: no feature, or a negative degree.

    Source: target (a) of Baykal et al. (2022), section 5.
    """
    if features < 1 or degree < 0:
        raise ConfigError(f"At least one feature and a degree of at least 0 are needed, got {features} and {degree}.")
    rows = [
        [chosen.count(k) for k in range(features)]
        for total in range(degree + 1)
        for chosen in itertools.combinations_with_replacement(range(features), total)
    ]
    raw = 2 * torch.rand(len(rows), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    return Polynomial(exponents=torch.tensor(rows), coefficients=0.99 * raw / raw.abs().sum())


@dataclasses.dataclass(frozen=True, kw_only=True)
class HypercubeFunction:
    """``sum_y v_y prod_i (1 + y_i x_i) / 2`` over the corners y of the cube: multilinear, with value v_y at corner y.

    Attributes:
        corners: (2,) * features tensor of v; index 1 along axis i stands for y_i = +1.
    """

    corners: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Values (rows,) at rows (rows, features)."""
        value = self.corners.to(x.dtype).expand(len(x), *self.corners.shape)
        for feature in range(x.shape[1]):
            weight = ((1 + x[:, feature]) / 2).reshape(-1, *[1] * (value.ndim - 2))
            value = value[:, 0] * (1 - weight) + value[:, 1] * weight
        return value


def random_hypercube_function(features: int, *, seed: int = 0) -> HypercubeFunction:
    """Corner values -1 or +1 by chance.

    Raises:
        ConfigError: fewer than one or more than 20 features.

    Source: target (b) of Baykal et al. (2022), section 5.
    """
    if not 1 <= features <= 20:
        raise ConfigError(f"A hypercube function has 1 to 20 features, got {features}.")
    g = torch.Generator().manual_seed(seed)
    signs = 2.0 * torch.randint(0, 2, (2,) * features, generator=g) - 1
    return HypercubeFunction(corners=signs.double())


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridFunction:
    """Values at the corners of a grid on [-1, 1]^k, multilinear between them; one cell is a hypercube function.

    Attributes:
        corners: (cells + 1,) * k values; index j along an axis stands for ``x_i = 2 j / cells - 1``.
    """

    corners: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Values (rows,) at rows (rows, k)."""
        value = self.corners.to(x.dtype).expand(len(x), *self.corners.shape)
        for feature, points in enumerate(self.corners.shape):
            place = (x[:, feature] + 1) * (points - 1) / 2
            weight = (1 - (place[:, None] - torch.arange(points)).abs()).clamp(min=0)
            value = torch.einsum("rc...,rc->r...", value, weight)
        return value

    @property
    def lipschitz(self) -> float:
        """A bound of the slope: the norm of the largest differences along the axes, over the cells' sides."""
        steps = [
            float(self.corners.diff(dim=axis).abs().max()) * (points - 1) / 2
            for axis, points in enumerate(self.corners.shape)
        ]
        return math.hypot(*steps)


def random_grid_function(dimension: int, *, cells: int, seed: int = 0) -> GridFunction:
    """Corner values -1 or +1 by chance: about as much to know as an L-Lipschitz function can hold.

    Args:
        dimension: k.
        cells: along each axis.
        seed: of the values.

    Raises:
        ConfigError: no axis or cell, or more than 2**24 corners.

    Source: the kind of function in the lower bound of Baykal et al. (2022), theorem 4.3; the grid is ours.
    """
    if dimension < 1 or cells < 1 or dimension * math.log2(cells + 1) > 24:
        raise ConfigError(f"At least one axis and cell and at most 2**24 corners, got {dimension} axes, {cells} cells.")
    g = torch.Generator().manual_seed(seed)
    signs = 2.0 * torch.randint(0, 2, (cells + 1,) * dimension, generator=g) - 1
    return GridFunction(corners=signs.double())


def on_subspace(rows: int, *, features: int, dimension: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs on a k-dimensional subspace of a d-dimensional space.

    Args:
        rows: number of inputs.
        features: d.
        dimension: k.
        generator: the random numbers' source; the basis is drawn from it first.

    Returns:
        (rows, d) float64 inputs ``u B sqrt(d / k)``, and the u (rows, k), uniform on [-1, 1]^k. B has orthonormal rows,
        and the factor keeps the mean square of a coordinate the same for every k.
    """
    basis = torch.linalg.qr(torch.randn(features, dimension, generator=generator, dtype=torch.float64))[0].t()
    u = 2 * torch.rand(rows, dimension, generator=generator, dtype=torch.float64) - 1
    return u @ basis * math.sqrt(features / dimension), u


def on_manifold(rows: int, *, features: int, dimension: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs on a curved k-dimensional surface: waves of u along random directions.

    Args:
        rows, features, dimension, generator: as in :func:`on_subspace`.

    Returns:
        (rows, d) inputs ``sin(u W + phase)`` with W of norm 1 a column, and the u (rows, k).
    """
    w = torch.randn(dimension, features, generator=generator, dtype=torch.float64)
    phase = 2 * math.pi * torch.rand(features, generator=generator, dtype=torch.float64)
    u = 2 * torch.rand(rows, dimension, generator=generator, dtype=torch.float64) - 1
    return (u @ (w / w.norm(dim=0)) + phase).sin(), u
