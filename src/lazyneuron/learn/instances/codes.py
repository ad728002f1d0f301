"""Networks from perfect codes: exactly one neuron is active on every input, and each depends on all inputs."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError
from lazyneuron.learn import cube
from lazyneuron.learn.checks import count, positive
from lazyneuron.learn.instances.instance import Instance, signs
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.ops.array import Array

_GOLAY = 0b101011100011  # x^11 + x^9 + x^7 + x^6 + x^5 + x + 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Code:
    """A perfect code.

    Attributes:
        words: the codewords as integers.
        n: their length.
        radius: t; the balls of this radius partition the cube.
    """

    words: tuple[int, ...]
    n: int
    radius: int


def hamming_code(r: int) -> Code:
    """The Hamming code of length 2^r - 1, which corrects one error.

    Raises:
        ConfigError: r lies outside 2..4.
    """
    r = count(r, "r, the number of check bits,", least=2, most=4)
    n = 2**r - 1
    index = np.arange(2**n, dtype=np.int64)
    syndrome = np.zeros(len(index), np.int64)
    for j in range(n):
        syndrome ^= (index >> j & 1) * (j + 1)
    return Code(words=tuple(index[syndrome == 0].tolist()), n=n, radius=1)


def golay_code() -> Code:
    """The binary Golay code: 4096 words of length 23, which corrects three errors."""
    basis = [_GOLAY << i for i in range(12)]
    words = {0}
    for row in basis:
        words |= {w ^ row for w in words}
    return Code(words=tuple(sorted(words)), n=23, radius=3)


def code_net(code: Code, *, norm: float | None = None, seed: int | None = None) -> Instance:
    """One neuron for each codeword: active within its ball, with value ``2 (radius - distance) + 2``.

    Args:
        code: a perfect code.
        norm: the norm W of each neuron; None leaves weights of +-1, W = sqrt(n).
        seed: of random outer signs; None makes them all +1.

    Raises:
        ConfigError: the code is none, or a number out of range.
    """
    _check_code(code)
    rows = 1.0 - 2.0 * (np.array(code.words)[:, None] >> np.arange(code.n) & 1)
    scale = 1.0 if norm is None else positive(norm, "norm") / math.sqrt(code.n)
    threshold = np.full(len(rows), code.n - 2.0 * code.radius - 2)
    net = SparseActivationNet(rows, threshold, scale * signs(len(rows), seed))
    why = "Balls around codewords partition the cube, and a neuron is active within its ball."
    return Instance(name=f"code of length {code.n}", net=net, max_active=1, why=why, base=code.n)


def code_table(code: Code, instance: Instance) -> Array:
    """The values of :func:`code_net` on the whole cube, ball by ball: fast where ``s 2^n`` products would not be.

    Args:
        code: a perfect code.
        instance: what :func:`code_net` made of it.

    Raises:
        ConfigError: the code is none, the instance is not of it, or n is too large.
    """
    _check_code(code)
    if not isinstance(instance, Instance) or instance.net.s != len(code.words):
        raise ConfigError(f"An instance of this code is what code_net made of it, got {described(instance)}.")
    cube.check_enumerable(code.n)
    out = np.zeros(2**code.n)
    words, outer = np.array(code.words, np.int64), instance.net.outer
    for distance in range(code.radius + 1):
        for places in itertools.combinations(range(code.n), distance):
            out[words ^ sum(1 << j for j in places)] = outer * (2 * (code.radius - distance) + 2)
    return out


def _check_code(code: object) -> None:
    if not isinstance(code, Code):
        raise ConfigError(f"A code is a Code, as hamming_code returns it, got {described(code)}.")
