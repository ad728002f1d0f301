"""Diameters and counts of buckets against brute force: corners of the polygons that hyperplanes cut out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lazyneuron.core.errors import AssumptionError
from lazyneuron.route import (
    bucket_diameter,
    gaussian_bucket_diameter,
    gaussian_hyperplanes,
    hyperplane_cells,
    lsh_hyperplanes,
    on_subspace,
    random_hash,
)


def widest(directions: Tensor, width: float) -> float:
    """Diameter of ``{v : |a_i . v| <= width}`` in the plane: twice the farthest corner, found among all crossings."""
    best = 0.0
    for i, j in itertools.combinations(range(len(directions)), 2):
        pair = directions[[i, j]]
        for sign in (1.0, -1.0):
            corner = torch.linalg.solve(pair, torch.tensor([width, sign * width], dtype=torch.float64))
            if bool(((directions @ corner).abs() <= width * (1 + 1e-9)).all()):
                best = max(best, 2 * float(corner.norm()))
    return best


def test_the_lemma_as_published() -> None:
    assert lsh_hyperplanes(dimension=7, constant=3.0).value == 21
    assert bucket_diameter(width=0.5, constant=4.0).value == 0.125
    for bound in (lsh_hyperplanes(dimension=1), bucket_diameter(width=1.0)):
        assert bound.order_only and bound.failure_probability == 0.1 and "Lemma 4.2" in bound.source


def test_the_diameter_by_hand() -> None:
    # t = sqrt(2 log e^2) = 2, so 10 / (10 - 2 - 2) = 5 / 3 widths
    found = gaussian_bucket_diameter(width=3.0, dimension=4, hyperplanes=100, failure_probability=math.exp(-2))
    assert found.value == pytest.approx(5.0) and not found.order_only
    # (2 + 2) 5 / 2 = 10 directions squared
    wanted = gaussian_hyperplanes(dimension=4, ratio=5 / 3, failure_probability=math.exp(-2))
    assert wanted.value == pytest.approx(100, abs=1)
    assert gaussian_bucket_diameter(width=1.0, dimension=9, hyperplanes=9).value == math.inf


@pytest.mark.parametrize("dimension", [1, 3, 10, 50])
def test_so_many_hyperplanes_are_enough_and_one_less_is_not(dimension: int) -> None:
    many = int(gaussian_hyperplanes(dimension=dimension, ratio=1.5).value)
    sizes = [gaussian_bucket_diameter(width=1.0, dimension=dimension, hyperplanes=d).value for d in (many, many - 1)]
    assert sizes[0] <= 1.5 < sizes[1]


def test_hardly_a_draw_has_wider_buckets_than_the_bound() -> None:
    draws, failure = 200, 0.2
    bound = gaussian_bucket_diameter(width=1.0, dimension=2, hyperplanes=16, failure_probability=failure).value
    g = torch.Generator().manual_seed(0)
    found = [widest(torch.randn(16, 2, generator=g, dtype=torch.float64), 1.0) for _ in range(draws)]
    # three deviations of a binomial; the middle of the draws is within a factor of 4, so the bound says something
    allowed = failure * draws + 3 * math.sqrt(draws * failure * (1 - failure))
    assert sum(size > bound for size in found) <= allowed
    assert sorted(found)[draws // 2] > bound / 4


def test_inputs_of_one_bucket_are_no_farther_apart_than_the_polygon() -> None:
    g = torch.Generator().manual_seed(1)
    x, _ = on_subspace(4000, features=12, dimension=2, generator=g)
    h = random_hash(12, 16, width=4.0, generator=g)
    basis = torch.linalg.svd(x, full_matrices=False)[2][:2]
    limit = widest((basis @ h.directions).t(), 4.0)
    _, slots = torch.unique(h.vectors(x), dim=0, return_inverse=True)
    largest = max(float(torch.cdist(x[slots == k], x[slots == k]).max()) for k in range(int(slots.max()) + 1))
    assert limit / 3 < largest <= limit
    assert largest <= gaussian_bucket_diameter(width=4.0, dimension=2, hyperplanes=16).value


@pytest.mark.parametrize(("lines", "cells"), [(1, 2), (2, 4), (3, 7), (6, 22)])
def test_cells_of_lines_in_the_plane(lines: int, cells: int) -> None:
    assert hyperplane_cells(hyperplanes=lines, dimension=2) == cells
    g = torch.Generator().manual_seed(3)
    points = 40 * torch.randn(200_000, 2, generator=g)
    points[::2] /= 40
    seen = points @ torch.randn(2, lines, generator=g) + torch.rand(lines, generator=g) > 0
    reached = len(torch.unique((seen * (1 << torch.arange(lines))).sum(1)))
    assert cells - 2 <= reached <= cells  # a small triangle may be missed
    assert hyperplane_cells(hyperplanes=lines, dimension=lines + 3) == 2**lines


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lsh_hyperplanes(dimension=0), "at least one dimension"),
        (lambda: lsh_hyperplanes(dimension=1, constant=0.0), "constant is positive"),
        (lambda: bucket_diameter(width=-1.0), "width is positive"),
        (lambda: gaussian_bucket_diameter(width=1.0, dimension=1, hyperplanes=0), "one hyperplane"),
        (
            lambda: gaussian_bucket_diameter(width=1.0, dimension=1, hyperplanes=1, failure_probability=0),
            "lies between",
        ),
        (lambda: gaussian_hyperplanes(dimension=2, ratio=1.0), "any ratio above 1"),
        (lambda: hyperplane_cells(hyperplanes=0, dimension=2), "one hyperplane"),
    ],
)
def test_numbers_outside_are_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AssumptionError, match=message):
        call()
