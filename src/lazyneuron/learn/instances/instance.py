"""A network of the class together with what is known about it by construction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.learn import checks, cube
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.ops.array import Array

_WEIGHTS_BYTES = 2**32


def _as_it_is(x: Array) -> Array:
    return x


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """A network, its sparsity by structure, and its input law.

    Attributes:
        name: which family and size.
        net: the network.
        max_active: the largest number of active neurons on the support, or None where structure does not say.
        why: one sentence why.
        base: inputs are ``lift(y)`` for uniform y in {-1, +1}^base.
        lift: from rows of y to rows of x; the identity except for the hard families.
        allowed: which rows of y belong to the support; None for all.
    """

    name: str
    net: SparseActivationNet
    max_active: int | None
    why: str
    base: int
    lift: Callable[[Array], Array] = _as_it_is
    allowed: Callable[[Array], Array] | None = None

    @property
    def is_uniform(self) -> bool:
        """Whether the input law is uniform on the cube, which the Fourier statements need."""
        return self.lift is _as_it_is and self.allowed is None

    def sample(self, count: int, *, seed: int | np.random.Generator = 0, noise: float = 0.0) -> tuple[Array, Array]:
        """Inputs and labels.

        Args:
            count: how many.
            seed: of them, or a generator.
            noise: standard deviation of independent Gaussian noise on the labels.

        Returns:
            x of shape (count, n), int8 on the cube; y of shape (count,).

        Raises:
            ConfigError: a number is out of range, or the points would not fit into memory.
        """
        count, noise = checks.count(count, "The number of samples", least=0), checks.at_least(noise, 0, "Noise")
        checks.check_points(count, max(self.net.n, 1))
        generator = checks.generator_of(seed)
        base = cube.random_points(count, self.base, seed=generator)
        while self.allowed is not None and not (fits := self.allowed(base)).all():
            base[~fits] = cube.random_points(int((~fits).sum()), self.base, seed=generator)
        x = self.lift(base)
        y = self.net(x)
        return x, y + noise * generator.standard_normal(count) if noise else y

    def support(self) -> Array:
        """All inputs of the support, shape (points, n).

        Raises:
            ConfigError: there are too many.
        """
        cube.check_enumerable(self.base, 20)
        base = cube.points(self.base)
        return self.lift(base if self.allowed is None else base[self.allowed(base)])


def signs(count: int, seed: int | np.random.Generator | None) -> Array:
    """Random signs, or ones when there is no seed."""
    return np.ones(count) if seed is None else 1.0 - 2.0 * checks.generator_of(seed).integers(0, 2, count)


def check_size(neurons: int, inputs: int) -> None:
    """Refuse networks whose weights would not fit into memory.

    Raises:
        ConfigError: they would not.
    """
    needed = checks.upper(lambda: 8.0 * neurons * inputs)
    checks.check_memory(needed, "The weights of such a network", "take a smaller one", limit_bytes=_WEIGHTS_BYTES)


def table_of(values: object) -> tuple[Array, int]:
    """A table of 2^p values and p.

    Raises:
        DataError: the length is no power of two, or a value is no finite number.
    """
    table = checks.finite_array(np.ravel(np.asarray(values)), "The function's values", ndim=1)
    if len(table) < 1 or len(table) & (len(table) - 1):
        raise DataError(f"A function of p bits is given by 2^p values, got {len(table)}; list one for each input.")
    return table, len(table).bit_length() - 1


def place(rows: Array, n: int | None) -> Array:
    """Weight rows on the first coordinates of n.

    Raises:
        ConfigError: n is smaller than the number of coordinates, or so large that the network would not fit.
    """
    wanted = rows.shape[1] if n is None else checks.count(n, "n", least=0)
    check_size(len(rows), wanted)
    if wanted < rows.shape[1]:
        raise ConfigError(f"The function depends on {rows.shape[1]} coordinates, n = {wanted} is less; raise n.")
    out = np.zeros((len(rows), wanted))
    out[:, : rows.shape[1]] = rows
    return out
