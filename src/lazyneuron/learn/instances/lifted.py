"""Hard instances on lifted input laws: parities, and learning with rounding."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from lazyneuron.core.arguments import check_choice, check_switch, described
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.numbers import whole
from lazyneuron.learn.checks import count
from lazyneuron.learn.instances.instance import Instance, check_size
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.ops.array import Array


def lift_full(y: Array) -> Array:
    """``x_ii = y_i`` and ``x_ij = y_i y_j``, row-major, shape (rows, m^2)."""
    x = y[:, :, None] * y[:, None, :]
    i = np.arange(y.shape[1])
    x[:, i, i] = y
    return np.asarray(x.reshape(len(y), -1))


def lift_compact(y: Array) -> Array:
    """The same without repetitions: i <= j, shape (rows, m (m + 1) / 2)."""
    m = y.shape[1]
    i, j = np.triu_indices(m)
    return np.asarray(lift_full(y)[:, i * m + j])


def lifted_parity(m: int, subset: Sequence[int], *, compact: bool = False, plus_minus: bool = False) -> Instance:
    """The parity of the bits of a subset as a 1-sparse network on lifted inputs.

    The output is 1 where the product of the bits is +1 and 0 elsewhere, or the product itself with ``plus_minus``.

    Args:
        m: bits.
        subset: which of them, from 0.
        compact: leave out the repeated products.
        plus_minus: add the neurons of the other residue class with outer weight -2.

    Raises:
        ConfigError: the subset is empty, repeats a bit, or leaves 0..m-1, or the network would not fit.

    Source:
        Awasthi, Dikkala, Kamath, Meka (2024), Theorem 14, with the parity identity corrected by us:
        ``1[prod = +1] = sum over a = |S| mod 4, |a| <= |S| of 2 max(1/2 - (sum - a)^2, 0)``.
    """
    m = count(m, "m, the number of bits,")
    given = _numbers(subset, "A bit of the subset")
    chosen = sorted(set(given))
    if not chosen or len(chosen) != len(given) or chosen[-1] >= m:
        raise ConfigError(f"A subset holds different bits from 0 to {m - 1:.9g}, at least one, got {given}.")
    check_switch("compact", compact)
    check_switch("plus_minus", plus_minus)
    size = len(chosen)
    check_size(size + 1, m * m)
    even = [a for a in range(-size, size + 1) if (a - size) % 4 == 0]
    odd = [a for a in range(-size, size + 1) if (a - size) % 4 == 2] if plus_minus else []
    form = np.zeros(m)
    form[chosen] = 1
    net = _gadget(form, 0.0, even + odd, [1.0] * len(even) + [-1.0] * len(odd), compact=compact)
    return Instance(
        name=f"lifted parity, |S| = {size} of {m}",
        net=net,
        max_active=1,
        why="The sum of the bits is a whole number, and each neuron listens to one value of it.",
        base=m,
        lift=lift_compact if compact else lift_full,
    )


def lwr_instance(q: int, p: int, secret: Sequence[int], *, rounding: str = "floor") -> Instance:
    """Learning with rounding as a 1-sparse network: the label is ``<secret, y> mod q`` rounded to p values.

    Inputs are lifted +-1 bits of y in Z_q^m (bit +1 for a one).

    Args:
        q: modulus.
        p: number of labels, from 2 to q; with q of them nothing is rounded, and learning is linear algebra.
        secret: m whole numbers in 0..q-1.
        rounding: ``"floor"`` for ``floor(p (a mod q) / q)``; ``"mod"`` for ``(a mod q) mod p``, which is learning with
            rounding in disguise when p and q have no common factor, and *easy* (linear algebra) when p divides q.

    Raises:
        ConfigError: the numbers are out of range, or the network would not fit.
    """
    q, p, numbers = count(q, "q", least=2), count(p, "p"), _numbers(secret, "A number of the secret")
    if not 2 <= p <= q or not numbers or max(numbers) >= q:
        raise ConfigError(
            f"Rounding needs 2 <= p <= q and a secret of numbers in 0..q-1, got q={q:.9g}, p={p:.9g}, {numbers}."
        )
    check_choice("A rounding", rounding, ("floor", "mod"))
    if rounding == "mod" and math.gcd(p, q) != 1 and q % p:
        raise ConfigError(f"Rounding by mod needs p and q without common factor, or p dividing q, got {p} and {q}.")
    bits = (q - 1).bit_length()
    check_size(len(numbers) * (q - 1) ** 2 + 1, (len(numbers) * bits) ** 2)
    w = np.array(numbers, np.int64)
    form = (0.5 * w[:, None] * 2.0 ** np.arange(bits)).ravel()
    values = range(int(len(w) * (q - 1) ** 2) + 1)
    label = [_rounded(a, p, q, rounding) for a in values]
    kept = [a for a in values if label[a]]
    net = _gadget(form, float(form.sum()), kept, [float(label[a]) for a in kept], compact=False)
    easy = " (easy: p divides q)" if rounding == "mod" and q % p == 0 else ""
    easy = " (easy: nothing is rounded)" if p == q else easy
    return Instance(
        name=f"learning with rounding, q = {q}, p = {p}, m = {len(w)}{easy}",
        net=net,
        max_active=1,
        why="<secret, y> is a whole number, and each neuron listens to one value of it.",
        base=len(form),
        lift=lift_full,
        allowed=functools.partial(_below, q=q, bits=bits),
    )


def _numbers(values: object, name: str) -> list[int]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"{name} is a whole number, of which there is a sequence, got {described(values)}.")
    return [whole(value, name, least=0) for value in values]


def digits_of(y: Array, bits: int) -> Array:
    """The numbers whose bits are given as +-1, shape (rows, m)."""
    ones = (y > 0).reshape(len(y), -1, bits)
    return np.asarray((ones * (1 << np.arange(bits))).sum(axis=2))


def _below(y: Array, q: int, bits: int) -> Array:
    return np.asarray((digits_of(y, bits) < q).all(axis=1))


def _rounded(a: int, p: int, q: int, rounding: str) -> int:
    return (p * (a % q)) // q if rounding == "floor" else (a % q) % p


def _gadget(
    form: Array, constant: float, values: Sequence[int], labels: Sequence[float], *, compact: bool
) -> SparseActivationNet:
    """``sum over a of label(a) 2 max(1/2 - (<form, z> + constant - a)^2, 0)`` on lifted z."""
    m = len(form)
    square = -np.outer(form, form)
    np.fill_diagonal(square, 0)
    shift = constant - np.array(values, np.float64)
    weight = np.tile(square.ravel(), (len(shift), 1))
    weight[:, np.arange(m) * (m + 1)] = -2 * shift[:, None] * form
    if compact:
        i, j = np.triu_indices(m)
        weight = weight[:, i * m + j] + np.where(i < j, weight[:, j * m + i], 0)
    return SparseActivationNet(weight, (form @ form) + shift**2 - 0.5, 2 * np.array(labels))
