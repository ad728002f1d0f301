"""A polynomial of any degree in each bucket, fitted in closed form: LSH(d, s, m, Delta) with any Delta."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lazyneuron.core.arguments import check_tensor, described
from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.core.numbers import real
from lazyneuron.ops.buckets.reference import check_finite
from lazyneuron.route.affine_hash import AffineHash
from lazyneuron.route.polynomials import degree_of, monomials, polynomial_terms
from lazyneuron.route.table import BucketTable

_AT_ONCE = 1 << 22  # numbers of products that are held at a time
_MOST_TERMS = 4096  # of one polynomial, whose square is 128 MiB
_MOST_HELD = 1 << 29  # coefficients of one table: 4 GiB
_ONE_BY_ONE = 32  # terms from which a product of matrices a bucket is faster than sums of outer products
_Fitted = tuple[Tensor, Tensor, Tensor]  # centroids, scales, coefficients


class BucketPolynomials:
    """Least squares with a polynomial of any degree in each bucket of one or more tables.

    A bucket's polynomial is fitted in the bucket's own coordinates, moved to its centroid and divided by the largest
    distance of its rows along an axis, or by that of the median row's bucket where it is larger: all terms lie in
    [-1, 1] wherever the rows are, and few rows close together do not decide far away. Tables are averaged. What has no
    bucket gets the overall mean.

    Args:
        hashes: one for each table.
        degree: 0 to 1000.
        ridge: above 0; added to the variances of the terms but the constant: what a bucket with fewer rows than terms
            needs.

    Raises:
        ConfigError: no table, what are no hashes or of different inputs, or other numbers.

    Cost: of a prediction, :func:`lsh_model_flops`; memory of ``C(features + degree, degree)`` numbers a bucket and
        output, and while some buckets are fitted, of the square of that for these: 32 MiB, or one square where that is
        more.

    Source: LSH(d, s, m, Delta) of Baykal et al. (2022), section 3; fitting it in closed form is ours.
    """

    def __init__(self, hashes: Sequence[AffineHash], *, degree: int, ridge: float = 1e-9) -> None:
        several = isinstance(hashes, Sequence) and not isinstance(hashes, str)
        if not several or not hashes or not all(isinstance(one, AffineHash) for one in hashes):
            got = "none" if several and not hashes else described(hashes)
            raise ConfigError(f"At least one hash is given, as a list of AffineHash; got {got}.")
        if len({one.features for one in hashes}) > 1:
            raise ConfigError("All hashes are of the same inputs, got some of different numbers of features.")
        self.hashes, self.degree = tuple(hashes), degree_of(degree)
        self.ridge = real(ridge, "The ridge", above=0)
        self.tables: list[BucketTable] = []
        self._held: list[_Fitted] = []
        self._mean = torch.zeros(0, dtype=torch.float64)

    @property
    def buckets(self) -> int:
        """Of all tables."""
        return sum(len(table) for table in self.tables)

    def fit(self, x: Tensor, y: Tensor) -> BucketPolynomials:
        """Learn from rows, forgetting what was learned before; what fails forgets and learns nothing.

        Args:
            x: (rows, features) float32 or float64.
            y: (rows, outputs), at least one output.

        Raises:
            ConfigError: a polynomial of more than 4096 terms.
            DataError: no tensors, no row, rows that are not finite or so large that their squares are not, or buckets
                whose coefficients take more than 4 GiB a table.
            ShapeError: other shapes.
        """
        check_tensor("What is learned from", x)
        check_tensor("What is learned", y)
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not y.shape[1]:
            raise ShapeError(
                f"Rows and as many targets of at least one output are learned from, two axes each, got "
                f"{tuple(x.shape)} and {tuple(y.shape)}."
            )
        if not len(x):
            raise DataError("There is no row to learn from; pass at least one.")
        check_finite(x)
        check_finite(y)
        terms = polynomial_terms(features=self.hashes[0].features, degree=self.degree)
        if terms > _MOST_TERMS:
            raise ConfigError(
                f"A polynomial of degree {self.degree} in {self.hashes[0].features} features has "
                f"{terms if terms < 10**9 else f'about 2^{terms.bit_length()}'} terms, and at most {_MOST_TERMS} are "
                "fitted at once; take a lower degree."
            )
        rows, targets = x.detach().double(), y.detach().double()
        mean = targets.mean(0)
        tables, held = [], []
        for affine in self.hashes:
            table = BucketTable(affine.hashes)
            slots = table.add(affine.vectors(x))
            if len(table) * terms * y.shape[1] > _MOST_HELD:
                raise DataError(
                    f"{len(table)} buckets of {terms} terms and {y.shape[1]} outputs take more than the 4 GiB of one "
                    "table; use wider buckets or a lower degree."
                )
            held.append(_fit(rows, targets - mean, slots, degree=self.degree, ridge=self.ridge))
            tables.append(table)
        if not all(bool(part.isfinite().all()) for part in (mean, *(part for parts in held for part in parts))):
            raise DataError("The rows are so large that their squares are not finite; scale them.")
        self.tables, self._held, self._mean = tables, held, mean
        return self

    def predict(self, x: Tensor) -> Tensor:
        """(rows, features) to (rows, outputs) float64.

        Raises:
            ConfigError: nothing was learned yet.
            DataError: no tensor, or rows that are not finite.
            ShapeError: rows of another length.
        """
        if not self.tables:
            raise ConfigError("Nothing was learned yet; call fit first.")
        check_tensor("What is predicted for", x)
        found = [table.find(affine.vectors(x)) for affine, table in zip(self.hashes, self.tables, strict=True)]
        rows, y = x.detach().double(), torch.zeros(len(x), len(self._mean), dtype=torch.float64)
        for slots, (centres, scales, values) in zip(found, self._held, strict=True):
            for part in torch.split(torch.arange(len(x))[slots >= 0], max(1, _AT_ONCE // values[0].numel())):
                at = slots[part]
                local = (rows[part] - centres[at]) / scales[at]
                y[part] += torch.einsum("rp,rpo->ro", monomials(local, self.degree), values[at])
        return y / len(self.tables) + self._mean


def _fit(x: Tensor, y: Tensor, slots: Tensor, *, degree: int, ridge: float) -> _Fitted:
    """Centroids (buckets, features), scales (buckets, 1) and coefficients (buckets, terms, outputs)."""
    counts = torch.bincount(slots).double()
    centres = x.new_zeros(len(counts), x.shape[1]).index_add_(0, slots, x) / counts[:, None]
    away = (x - centres[slots]).abs().amax(1)
    scales = x.new_zeros(len(counts)).scatter_reduce_(0, slots, away, "amax")[:, None]
    scales = scales.clamp(min=float(scales[slots].median()))  # few rows close together tell no high powers
    scales = torch.where(scales > 0, scales, 1.0)
    terms = polynomial_terms(features=x.shape[1], degree=degree)
    values = x.new_empty(len(counts), terms, y.shape[1])
    order = slots.argsort(stable=True)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), counts.long().cumsum(0)]).tolist()
    together = max(1, _AT_ONCE // terms**2)
    for first in range(0, len(counts), together):
        last = min(first + together, len(counts))
        parts = (
            (at - first, monomials((x[rows] - centres[at]) / scales[at], degree), y[rows])
            for rows in torch.split(order[ends[first] : ends[last]], max(1, _AT_ONCE // terms))
            for at in (slots[rows],)
        )
        gram, right = _squares(parts, buckets=last - first, terms=terms, outputs=y.shape[1])
        n = counts[first:last, None, None]
        values[first:last] = _solve(gram / n, right / n, ridge)
    return centres, scales, values


def _squares(
    parts: Iterator[tuple[Tensor, Tensor, Tensor]], *, buckets: int, terms: int, outputs: int
) -> tuple[Tensor, Tensor]:
    """Sums of p p^T (buckets, terms, terms) and p y^T (buckets, terms, outputs), from rows sorted by their bucket."""
    gram = torch.zeros(buckets, terms, terms, dtype=torch.float64)
    right = torch.zeros(buckets, terms, outputs, dtype=torch.float64)
    for slots, p, y in parts:
        if terms >= _ONE_BY_ONE:
            present, counts = torch.unique_consecutive(slots, return_counts=True)
            sizes = counts.tolist()
            groups = zip(present.tolist(), torch.split(p, sizes), torch.split(y, sizes), strict=True)
            for slot, own, wanted in groups:
                gram[slot] += own.t() @ own
                right[slot] += own.t() @ wanted
            continue
        for few in torch.split(torch.arange(len(p)), max(1, _AT_ONCE // terms**2)):
            gram.index_add_(0, slots[few], p[few, :, None] * p[few, None, :])
            right.index_add_(0, slots[few], p[few, :, None] * y[few, None, :])
    return gram, right


def _solve(gram: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Coefficients of mean squares: the constant term is eliminated, the others' covariance has the ridge added."""
    means, level = gram[:, 0, 1:], right[:, :1]
    square = gram[:, 1:, 1:] - means[:, :, None] * means[:, None, :]
    square.diagonal(dim1=1, dim2=2).add_(ridge)
    wanted = right[:, 1:] - means[:, :, None] * level
    factor, info = torch.linalg.cholesky_ex(square)
    slopes = torch.cholesky_solve(wanted, factor)
    for bucket in info.nonzero()[:, 0].tolist():  # rounding reaches the ridge
        slopes[bucket] = _along_axes(square[bucket], wanted[bucket], ridge)
    return torch.cat([level - means[:, None, :] @ slopes, slopes], 1)


def _along_axes(square: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """The solution along the eigenvectors, with none of the eigenvalues below what rounding leaves of it."""
    if not bool(square.isfinite().all()):
        return torch.full_like(wanted, torch.nan)
    values, vectors = torch.linalg.eigh(square)
    floor = max(ridge, float(values[-1]) * len(values) * torch.finfo(values.dtype).eps)
    slopes: Tensor = vectors @ (vectors.t() @ wanted / values.clamp(min=floor)[:, None])
    return slopes
