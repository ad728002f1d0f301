"""Polynomials of any degree: their terms, and one fitted in each bucket, for LSH(d, s, m, Delta) with any Delta."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.ops.buckets.reference import check_finite
from lazyneuron.route.affine_hash import AffineHash
from lazyneuron.route.table import BucketTable

_AT_ONCE = 1 << 22  # numbers of products that are held at a time


def monomials(x: Tensor, degree: int) -> Tensor:
    """All products of at most ``degree`` entries, the empty product first.

    Args:
        x: (..., features).
        degree: 0 or more.

    Returns:
        (..., C(features + degree, degree)): 1, then the entries, then the products of two in the order of
        ``itertools.combinations_with_replacement``, and so on.

    Raises:
        ConfigError: a negative degree.
    """
    if degree < 0:
        raise ConfigError(f"The degree of a polynomial is at least 0, got {degree}.")
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

    Source: Baykal et al. (2022), section 3: the factor of degree Delta in the forward time of LSH(d, s, m, Delta).
    """
    return math.comb(features + degree, degree)


def lsh_model_flops(*, features: int, tables: int, hyperplanes: int, degree: int = 0, outputs: int = 1) -> int:
    """FLOPs of one prediction of LSH(d, s, m, Delta): hashing, and a polynomial a table; no bucket counts.

    Args:
        features: d.
        tables: s.
        hyperplanes: m, of one table.
        degree: Delta.
        outputs: of the model.

    Returns:
        ``2 s m d + 2 s outputs C(d + Delta, Delta)``, a multiply-add being two; a constant alone is only added.

    Source: Baykal et al. (2022), section 3, which gives the orders.
    """
    each = outputs * (2 * polynomial_terms(features=features, degree=degree) if degree else 1)
    return tables * (2 * hyperplanes * features + each)


class BucketPolynomials:
    """Least squares with a polynomial of any degree in each bucket of one or more tables.

    A bucket's polynomial is fitted in the bucket's own coordinates, moved to its centroid and divided by its
    deviation, so that high powers lose no digits; tables are averaged. What has no bucket gets the overall mean.

    Args:
        hashes: one for each table.
        degree: 0 or more.
        ridge: added to the mean squares of the terms but the constant; what a bucket with fewer rows than terms needs.

    Raises:
        ConfigError: no table, a negative degree, or a ridge that is not positive.

    Cost: of a prediction, :func:`lsh_model_flops`; memory of ``C(features + degree, degree)`` numbers a bucket, and
        their square while a bucket is fitted.

    Source: LSH(d, s, m, Delta) of Baykal et al. (2022), section 3; fitting it in closed form is ours.
    """

    def __init__(self, hashes: Sequence[AffineHash], *, degree: int, ridge: float = 1e-9) -> None:
        if not hashes or degree < 0 or not (ridge > 0 and math.isfinite(ridge)):
            raise ConfigError(
                f"At least one hash, a degree of at least 0 and a positive ridge, got {len(hashes)}, {degree}, {ridge}."
            )
        self.hashes, self.degree, self.ridge = tuple(hashes), degree, ridge
        self.tables: list[BucketTable] = []
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []  # centroids, scales, coefficients
        self._mean = torch.zeros(1, dtype=torch.float64)

    @property
    def buckets(self) -> int:
        """Of all tables."""
        return sum(len(table) for table in self.tables)

    def fit(self, x: Tensor, y: Tensor) -> BucketPolynomials:
        """Learn from rows, forgetting what was learned before.

        Args:
            x: (rows, features) float32 or float64.
            y: (rows, outputs).

        Raises:
            DataError: no row, or rows that are not finite.
            ShapeError: other shapes.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise ShapeError(f"Rows and as many targets, two axes each, got {tuple(x.shape)} and {tuple(y.shape)}.")
        if not len(x):
            raise DataError("There is no row to learn from; pass at least one.")
        check_finite(x)
        check_finite(y)
        wide, self._mean = y.double(), y.double().mean(0)
        self.tables = [BucketTable(affine.hashes) for affine in self.hashes]
        self._held = [
            _fit(x.double(), wide - self._mean, table.add(affine.vectors(x)), self.degree, self.ridge)
            for affine, table in zip(self.hashes, self.tables, strict=True)
        ]
        return self

    def predict(self, x: Tensor) -> Tensor:
        """(rows, features) to (rows, outputs) float64.

        Raises:
            DataError: rows that are not finite.
            ShapeError: rows of another length.
        """
        y = torch.zeros(len(x), len(self._mean), dtype=torch.float64)
        for affine, table, (centres, scales, values) in zip(self.hashes, self.tables, self._held, strict=True):
            slots = table.find(affine.vectors(x))
            for part in torch.split(torch.arange(len(x))[slots >= 0], max(1, _AT_ONCE // values[0].numel())):
                at = slots[part]
                local = (x[part].double() - centres[at]) / scales[at]
                y[part] += torch.einsum("rp,rpo->ro", monomials(local, self.degree), values[at])
        return y / len(self.tables) + self._mean


def _fit(x: Tensor, y: Tensor, slots: Tensor, degree: int, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Centroids (buckets, features), deviations (buckets, 1) and coefficients (buckets, terms, outputs)."""
    buckets, outputs = int(slots.max()) + 1, y.shape[1]
    counts = torch.bincount(slots, minlength=buckets).double()[:, None]
    centres = x.new_zeros(buckets, x.shape[1]).index_add_(0, slots, x) / counts
    away = (x - centres[slots]).square().sum(1, keepdim=True)
    scales = (x.new_zeros(buckets, 1).index_add_(0, slots, away) / counts / x.shape[1]).sqrt()
    scales = torch.where(scales > 0, scales, 1.0)
    terms = polynomial_terms(features=x.shape[1], degree=degree)
    gram, right = x.new_zeros(buckets, terms, terms), x.new_zeros(buckets, terms, outputs)
    for part in torch.split(torch.arange(len(x)), max(1, _AT_ONCE // terms**2)):
        at = slots[part]
        p = monomials((x[part] - centres[at]) / scales[at], degree)
        gram.index_add_(0, at, p[:, :, None] * p[:, None, :])
        right.index_add_(0, at, p[:, :, None] * y[part][:, None, :])
    penalty = ridge * torch.ones(terms, dtype=x.dtype)
    penalty[0] = 0
    gram = gram / counts[:, :, None] + torch.diag(penalty)
    return centres, scales, torch.cholesky_solve(right / counts[:, :, None], torch.linalg.cholesky(gram))
