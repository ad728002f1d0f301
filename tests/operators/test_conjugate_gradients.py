"""Conjugate gradients against a direct solution, for one right side and for several."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lazyneuron.ops.conjugate_gradients import conjugate_gradients


def system(size: int) -> np.ndarray:
    root = np.random.default_rng(0).standard_normal((size, size))
    return root @ root.T + size * np.eye(size)


@pytest.mark.parametrize("size", [1, 2, 30])
def test_an_array_is_solved_in_at_most_as_many_steps_as_unknowns(size: int) -> None:
    matrix, right = system(size), np.random.default_rng(1).standard_normal(size)
    end = conjugate_gradients(matrix.dot, right, inner=np.dot, steps=100, tolerance=1e-12)
    np.testing.assert_allclose(end.found, np.linalg.solve(matrix, right), rtol=1e-10)
    assert end.steps <= size + 1 and end.reduction <= 1e-24


def test_columns_of_a_tensor_are_solved_together_and_one_of_zeros_stays_zero() -> None:
    matrix, right = (
        torch.from_numpy(system(20)),
        torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double(),
    )
    right[:, 1] = 0
    end = conjugate_gradients(
        lambda d: matrix @ d, right, inner=lambda a, b: (a * b).sum(0), steps=100, tolerance=1e-12
    )
    torch.testing.assert_close(end.found, torch.linalg.solve(matrix, right), rtol=1e-10, atol=1e-14)
    assert not end.found[:, 1].any()


def test_too_few_steps_are_told_by_what_is_left() -> None:
    matrix, right = system(30), np.ones(30)
    end = conjugate_gradients(matrix.dot, right, inner=np.dot, steps=2, tolerance=1e-12)
    left = right - matrix @ end.found
    assert end.steps == 2 and end.reduction == pytest.approx(left @ left / 30) and end.reduction > 1e-12


def test_a_right_side_of_zeros_takes_no_step() -> None:
    end = conjugate_gradients(system(3).dot, np.zeros(3), inner=np.dot, steps=9, tolerance=0.0)
    assert end.steps == 0 and end.reduction == 0 and not end.found.any()
