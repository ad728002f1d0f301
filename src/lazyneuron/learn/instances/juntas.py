"""Functions of few bits as networks: juntas, parities, Index, gated tables."""

from __future__ import annotations

import math

import numpy as np

from lazyneuron.core.arguments import check_choice
from lazyneuron.learn import cube
from lazyneuron.learn.checks import count, finite_array, generator_of, positive
from lazyneuron.learn.instances.instance import Instance, check_size, place, signs, table_of
from lazyneuron.learn.network import SparseActivationNet


def junta_net(values: object, *, n: int | None = None, amplitude: int = 1) -> Instance:
    """Any function of the first p bits: one neuron for each of their 2^p patterns, one active at a time.

    Args:
        values: the function's values, 2^p of them, in the order of :mod:`lazyneuron.learn.cube`.
        n: number of coordinates; p by default.
        amplitude: 1 gives the function, threshold p - 1; 2 gives twice it, threshold p - 2 (the extremal form).

    Raises:
        DataError: the number of values is no power of two.
        ConfigError: the amplitude is neither 1 nor 2, or n is less than p.

    Source:
        Awasthi, Dikkala, Kamath, Meka (2024), section 4; amplitude 2 is ours.
    """
    amplitude = count(amplitude, "The amplitude", most=2)
    table, p = table_of(values)
    check_size(2**p, p)
    rows = cube.points(p).astype(np.float64)
    net = SparseActivationNet(place(rows, n), np.full(len(rows), p - amplitude, np.float64), table)
    return Instance(
        name=f"junta of {p} bits",
        net=net,
        max_active=1,
        why="An input matches one pattern, others miss by 2.",
        base=net.n,
    )


def parity_net(p: int, *, k: int = 1, norm: float | None = None, n: int | None = None) -> Instance:
    """k copies of a multiple of the parity of p bits: attains the sensitivity bound D1.

    Args:
        p: how many bits, at least 1.
        k: copies; that many neurons are active at once.
        norm: the norm W of each neuron; None leaves whole weights, W = sqrt(p).
        n: number of coordinates; p by default.

    Raises:
        ConfigError: p is not from 1 to 24, k below 1, n below p, the norm not above 0, or the network would not fit.

    Source: ours.
    """
    p, k = count(p, "p, the number of bits,", most=cube.MOST_ENUMERATED), count(k, "k, the number of copies,")
    n = p if n is None else count(n, "n", least=p)
    check_size(k * 2**p, n)
    scale = 1.0 if norm is None else positive(norm, "norm") / math.sqrt(p)
    one = junta_net(cube.points(p).prod(axis=1), n=n, amplitude=2).net
    net = SparseActivationNet(np.tile(one.weight, (k, 1)), np.tile(one.threshold, k), np.tile(one.outer, k) * scale)
    why = "An input matches one pattern, and each pattern has k neurons."
    return Instance(name=f"parity of {p} bits, k = {k}", net=net, max_active=k, why=why, base=net.n)


def index_net(b: int) -> Instance:
    """The b address bits choose one of 2^b data bits: n = b + 2^b, s = 2^b, value (1 + chosen bit) / 2.

    Raises:
        ConfigError: b is below 1 or above 12.
    """
    b = _address(b)
    address = cube.points(b).astype(np.float64)
    weight = np.hstack([address, 0.5 * np.eye(len(address))])
    net = SparseActivationNet(weight, np.full(len(address), b - 0.5), np.ones(len(address)))
    why = "An address matches one neuron; others miss by 2, and the data bit adds at most 1/2."
    return Instance(name=f"Index, {b} address bits", net=net, max_active=1, why=why, base=net.n)


def gated_net(
    b: int,
    q: int,
    *,
    k: int = 1,
    gate: float | None = None,
    norm: float = 1.0,
    mode: str = "aligned",
    seed: int = 0,
) -> Instance:
    """A table of 2^b random ReLUs on q data bits, chosen by b address bits.

    Neuron (alpha, c) is ``max(<w, y> + gate (<x, alpha> - b), 0)`` with a random w of the given norm and a random sign
    outside.

    Args:
        b: address bits.
        q: data bits.
        k: neurons of an address.
        gate: the weight of the address; ``norm sqrt(q) / 2`` or more makes at most k active. None takes that.
        norm: Euclidean norm of w.
        mode: ``"aligned"`` (the k neurons of an address are equal) or ``"independent"``.
        seed: of weights and signs.

    Raises:
        ConfigError: a size is below 1, a number not above 0, the mode unknown, or the network would not fit.
    """
    b, q, k = _address(b), count(q, "q, the number of data bits,"), count(k, "k")
    check_choice("A mode", mode, ("aligned", "independent"))
    check_size(2**b * k, b + q)
    norm, generator = positive(norm, "norm"), generator_of(seed)
    copies = 1 if mode == "aligned" else k
    weight = generator.standard_normal((2**b * copies, q))
    weight *= norm / np.linalg.norm(weight, axis=1, keepdims=True)
    strength = norm * math.sqrt(q) / 2 if gate is None else positive(gate, "gate")
    outer = signs(2**b * copies, generator)
    address = np.repeat(cube.points(b).astype(np.float64), copies, axis=0)
    rows = np.hstack([strength * address, weight])
    repeat = k // copies
    net = SparseActivationNet(
        np.repeat(rows, repeat, axis=0), np.full(len(rows) * repeat, strength * b), np.repeat(outer, repeat)
    )
    closed = bool(np.abs(weight).sum(axis=1).max() <= 2 * strength)
    why = (
        "An address that differs takes 2 gate away, more than <w, y> can add."
        if closed
        else "The gate is too weak to close all other addresses on every input; count by enumeration."
    )
    name = f"gated table, {b} + {q} bits, k = {k}, {mode}"
    return Instance(name=name, net=net, max_active=k if closed else None, why=why, base=b + q)


def modulus_net(weight: object) -> Instance:
    """``|<w, x>|`` as two neurons without threshold, of which at most one is active.

    Args:
        weight: w, shape (n,).

    Raises:
        DataError, ShapeError: the weights are no row of finite numbers.
    """
    w = finite_array(weight, "weight", ndim=1)[None]
    net = SparseActivationNet(np.vstack([w, -w]), np.zeros(2), np.ones(2))
    return Instance(name=f"modulus, n = {net.n}", net=net, max_active=1, why="The two have opposite signs.", base=net.n)


def _address(b: int) -> int:
    return count(b, "The number of address bits, of which there are 2^b neurons,", most=12)
