"""Random networks made sparse by a common threshold, and the clusters of the width lower bound."""

from __future__ import annotations

import numpy as np

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.core.numbers import real
from lazyneuron.learn import cube
from lazyneuron.learn.checks import count, finite_array, generator_of, positive
from lazyneuron.learn.instances.instance import Instance, check_size, signs
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.ops.array import Array

_MOST = 18
_CLUSTERS = 2**28


def random_sparse_net(
    n: int, s: int, *, k: int | None = None, threshold: float | None = None, seed: int = 0
) -> Instance:
    """Random unit weights and signs with one threshold for all neurons.

    Args:
        n: inputs.
        s: neurons.
        k: the threshold is set to the largest (k + 1)-th pre-activation of any input, a rounding margin above it, so
            that at most k are active (n up to 18); the signal that remains is often tiny.
        threshold: or this threshold; then sparsity is soft, and the report's ``E K^2`` says how soft.
        seed: of weights and signs.

    Raises:
        ConfigError: both or none of k and threshold are given, a number is out of range, or the network would not fit.
    """
    if (k is None) == (threshold is None):
        raise ConfigError("Give either k (at most so many active) or a threshold.")
    n, s, generator = count(n, "n"), count(s, "s"), generator_of(seed)
    k = None if k is None else count(k, "k", most=s - 1)
    given = None if threshold is None else real(threshold, "The threshold")
    check_size(s, n)
    weight = generator.standard_normal((s, n))
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    outer = signs(s, generator)
    level = _level(weight, k) if k is not None else given or 0.0
    net = SparseActivationNet(weight, np.full(s, level), outer)
    why = "The threshold lies above the (k + 1)-th pre-activation of every input." if k else "A fixed threshold."
    return Instance(name=f"random, n = {n}, s = {s}", net=net, max_active=k, why=why, base=n)


def _level(weight: Array, k: int) -> float:
    cube.check_enumerable(weight.shape[1], _MOST)
    rows = max(2**22 // len(weight), 1)
    level = max(
        float(np.partition(block @ weight.T, -k - 1, axis=1)[:, -k - 1].max())
        for _, block in cube.blocks(weight.shape[1], rows=rows)
    )
    norms = np.abs(weight).sum(axis=1).max() + abs(level)
    return level + 64 * float(np.finfo(np.float64).eps * norms)


def cluster_net(q: int, *, k: int = 1, signs_of: object = None, radius: float = 1.0, kind: str = "points") -> Instance:
    """q clusters, k equal neurons each, of which only those of the input's cluster are active.

    On points W = 1 and the value on cluster b is ``sign_b k radius``. On cells W = sqrt(p), ``B = |p - 2|`` and the
    value is ``2 sign_b k``: the pattern of a cell scores p, its neighbours p - 2, which is the threshold.

    Args:
        q: clusters.
        k: neurons of a cluster.
        signs_of: one sign for each cluster, shape (q,); ones by default.
        radius: R, the length of the inputs of kind ``"points"``; cells are what they are.
        kind: ``"points"``: inputs are ``R e_b``; ``"cells"``: the q = 2^p points of the cube of p bits.

    Raises:
        ConfigError: a number is out of range, the network would not fit, or for cells q is no power of two or a radius
            is given.
        DataError, ShapeError: signs are not one finite number for each cluster.
    """
    q, k, scale = count(q, "q"), count(k, "k"), positive(radius, "radius")
    check_choice("A kind", kind, ("points", "cells"))
    if kind == "cells" and q & (q - 1):
        raise ConfigError(f"Cells need q = 2^p, got q = {q:.9g}.")
    if kind == "cells" and scale != 1.0:
        raise ConfigError(f"A radius is that of points, but cells were asked for, got {scale}; leave it out.")
    check_size(q * k, q if kind == "points" else q.bit_length())
    given = np.ones(q) if signs_of is None else finite_array(signs_of, "signs_of", ndim=1)
    if given.shape != (q,):
        raise ConfigError(f"There is one sign for each of the {q} clusters, got shape {given.shape}.")
    outer = np.repeat(given, k)
    why = "An input lies in one cluster."
    if kind == "cells":
        p = q.bit_length() - 1
        rows = cube.points(p).astype(np.float64)
        net = SparseActivationNet(np.repeat(rows, k, axis=0), np.full(q * k, p - 2.0), outer)
        return Instance(name=f"cells, q = {q}", net=net, max_active=k, why=why, base=p)
    net = SparseActivationNet(np.repeat(np.eye(q), k, axis=0), np.zeros(q * k), outer)
    bits = max((q - 1).bit_length(), 1)

    def lift(y: Array) -> Array:
        number = ((y < 0) * (1 << np.arange(bits))).sum(axis=1)
        return np.asarray(scale * np.eye(q)[number])

    def allowed(y: Array) -> Array:
        return np.asarray(((y < 0) * (1 << np.arange(bits))).sum(axis=1) < q)

    return Instance(name=f"clusters, q = {q}", net=net, max_active=k, why=why, base=bits, lift=lift, allowed=allowed)


def cluster_erm(cluster: Array, labels: Array, q: int) -> Array:
    """Empirical risk minimiser over the signs of the clusters: the majority of each, +1 for a tie.

    Args:
        cluster: the cluster of each sample, shape (m,).
        labels: +-1, shape (m,).
        q: number of clusters.

    Raises:
        ConfigError: q is no count.
        DataError, ShapeError: clusters are not whole numbers below q, or labels are not as many.
    """
    q, labels = count(q, "q", most=_CLUSTERS), finite_array(labels, "labels", ndim=1)
    cluster = np.asarray(cluster)
    if cluster.shape != labels.shape:
        raise ShapeError(f"There is one label for each cluster, got shapes {labels.shape} and {cluster.shape}.")
    if cluster.size and (cluster.dtype.kind not in "iu" or cluster.min() < 0 or cluster.max() >= q):
        raise DataError(f"Clusters are whole numbers from 0 to q - 1 = {q - 1}; number them so.")
    cluster = cluster.astype(np.int64)
    return np.where(np.bincount(cluster, weights=labels, minlength=q) >= 0, 1.0, -1.0)
