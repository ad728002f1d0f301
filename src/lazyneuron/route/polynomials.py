"""Polynomials of any degree: their terms, and what LSH(d, s, m, Delta) costs with them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.arguments import check_tensor
from lazyneuron.core.errors import ConfigError, ShapeError
from lazyneuron.core.numbers import whole

_MOST = 2**53  # what a float counts exactly
_MOST_DEGREE = 1000  # above, counting the terms takes longer than anybody waits
_MOST_PRODUCTS = 1 << 31  # numbers of one call: 16 GiB in float64


def degree_of(value: Any) -> int:
    """A polynomial's degree, checked.

    Raises:
        ConfigError: no whole number from 0 to 1000.
    """
    return whole(value, "The degree of a polynomial", least=0, most=_MOST_DEGREE)


def monomials(x: Tensor, degree: int) -> Tensor:
    """All products of at most ``degree`` entries, the empty product first.

    Args:
        x: (..., features).
        degree: 0 to 1000.

    Returns:
        (..., C(features + degree, degree)): 1, then the entries, then the products of two in the order of
        ``itertools.combinations_with_replacement``, and so on.

    Raises:
        ConfigError: no such degree, or more than 2**31 products.
        DataError: no tensor.
        ShapeError: a tensor without axes.
    """
    degree = degree_of(degree)
    check_tensor("What is multiplied", x)
    if not x.ndim:
        raise ShapeError("Products are of the entries along a tensor's last axis, got a single number.")
    count = math.prod(x.shape[:-1]) * math.comb(x.shape[-1] + degree, degree)
    if count > _MOST_PRODUCTS:
        raise ConfigError(
            f"All products of at most {degree} entries of a tensor of shape {tuple(x.shape)} are about "
            f"2^{count.bit_length()} numbers, allowed are 2^31; take a lower degree or fewer rows at a time."
        )
    parts, last, starts = [torch.ones_like(x[..., :1])], torch.ones_like(x[..., :1]), [0] * (x.shape[-1] + 1)
    for _ in range(degree):
        columns: list[Tensor] = []
        begins: list[int] = []
        for feature in range(x.shape[-1]):  # a product begins with its first entry
            begins.append(sum(c.shape[-1] for c in columns))
            columns.append(x[..., feature : feature + 1] * last[..., starts[feature] :])
        last = torch.cat(columns, -1) if columns else last[..., :0]
        starts = [*begins, last.shape[-1]]
        parts.append(last)
    return torch.cat(parts, -1)


def polynomial_terms(*, features: int, degree: int) -> int:
    """Coefficients of a polynomial: ``C(features + degree, degree)``.

    Args:
        features: d, 1 to 2**53.
        degree: Delta, 0 to 1000.

    Raises:
        ConfigError: other numbers.

    Source: Baykal et al. (2022), section 3: the factor of degree Delta in the forward time of LSH(d, s, m, Delta).
    """
    features = whole(features, "The number of features", least=1, most=_MOST)
    degree = degree_of(degree)
    return math.comb(features + degree, degree)


def lsh_model_flops(*, features: int, tables: int, hyperplanes: int, degree: int = 0, outputs: int = 1) -> int:
    """FLOPs of one prediction of LSH(d, s, m, Delta): hashing, and a polynomial a table; no bucket counts.

    Args:
        features: d, 1 to 2**53 as all counts here.
        tables: s.
        hyperplanes: m, of one table.
        degree: Delta, 0 to 1000.
        outputs: of the model.

    Returns:
        ``2 s m d + 2 s outputs C(d + Delta, Delta)``, a multiply-add being two; at degree 0, where a bucket's constant
        is only added, ``2 s m d + s outputs``.

    Raises:
        ConfigError: other numbers.

    Source: Baykal et al. (2022), section 3, which gives the orders.
    """
    terms = polynomial_terms(features=features, degree=degree)
    tables = whole(tables, "The number of tables", least=1, most=_MOST)
    hyperplanes = whole(hyperplanes, "The number of hyperplanes", least=1, most=_MOST)
    outputs = whole(outputs, "The number of outputs", least=1, most=_MOST)
    each = outputs * (2 * terms if degree else 1)
    return tables * (2 * hyperplanes * int(features) + each)
