"""The search for candidates: no row is left out that any order of fp32 sums could choose, and few others are kept."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lazyneuron.accelerate.slack.certificate import build_sketch
from lazyneuron.ops.candidates import operators, reference
from tests.kernels import LEVELS, needs_kernels

pytestmark = needs_kernels
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def made(rows: int, width: int, tokens: int, dtype: torch.dtype, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights of which every fourth row comes twice, and inputs."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=g)
    weight[1::4] = weight[::4][: len(weight[1::4])]
    return weight.to(dtype), torch.randn(tokens, width, generator=g).to(dtype)


def chosen(weight: Tensor, x: Tensor, k: int) -> Tensor:
    """Booleans (rows,): among the k largest of some token, ties included, in float64 or in one of some fp32 orders."""
    g = torch.Generator().manual_seed(0)
    found = torch.zeros(len(weight), dtype=torch.bool)
    orders = [torch.randperm(weight.shape[1], generator=g) for _ in range(3)]
    products = [x.double() @ weight.double().T] + [(x[:, o].float() @ weight[:, o].float().T).double() for o in orders]
    for product in products:
        y = product.to(x.dtype)
        found |= (y >= y.topk(k, -1).values[:, -1:]).any(0)
    return found


@pytest.mark.parametrize("isa", LEVELS)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 63, 64, 65, 300]),
    width=st.sampled_from([1, 3, 4, 17, 64, 200]),
    tokens=st.sampled_from([1, 2, 7, 16, 17, 33]),
    dtype=st.sampled_from(DTYPES),
    k=st.integers(1, 70),
    seed=st.integers(0, 3),
)
def test_what_may_be_chosen_is_kept_and_little_else(
    isa: int, rows: int, width: int, tokens: int, dtype: torch.dtype, k: int, seed: int
) -> None:
    k = min(k, rows)
    weight, x = made(rows, width, tokens, dtype, seed=seed)
    sketch = build_sketch(weight, None)
    got = operators.candidates(x, sketch, k, isa=isa).bool()
    assert not (chosen(weight, x, k) & ~got).any()
    # the kernel's slack has what its own rounding and the grid of x add
    assert not (reference.candidates(x, sketch.with_slack(0.999), k).bool() & ~got).any()
    assert not (got & ~reference.candidates(x, sketch.with_slack(1.05), k).bool()).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_most_rows_are_left_out(dtype: torch.dtype) -> None:
    weight, x = made(5000, 256, 1, dtype)
    assert 1 <= int(operators.candidates(x, build_sketch(weight, None), 1).sum()) < 20
    assert 50 <= int(operators.candidates(x, build_sketch(weight, None), 50).sum()) < 250


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_slack_a_row_that_is_chosen_would_be_left_out(dtype: torch.dtype) -> None:
    """The slack is what keeps it: the remainders of the first row all point along x, those of the others against it."""
    x = torch.ones(1, 64, dtype=dtype)
    weight = torch.full((2, 64), 10.0)
    weight[0] += 0.25
    weight[0, 0] = weight[1, 0] = 127.0  # the scale is 1, so that the rest is rounded to whole numbers
    weight[1, 1] = 11.0
    weight = weight.to(dtype)
    sketch = build_sketch(weight, None)
    assert int((x.double() @ weight.double().T).argmax()) == 0
    assert operators.candidates(x, sketch, 1).tolist() == [1, 1]
    assert operators.candidates(x, sketch.with_slack(0.0), 1).tolist() == [0, 1]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_and_nearly_equal_rows_are_kept_together(dtype: torch.dtype, isa: int) -> None:
    """What rounding may make equal is a tie, of which the first counts."""
    weight, x = made(400, 128, 1, dtype, seed=5)
    best = int((x.double() @ weight.double().T).argmax())
    close = weight[best].clone()
    close[7] = torch.nextafter(close[7], torch.tensor(-9.0, dtype=dtype))
    places = [3, 77, 399]
    weight[3], weight[77], weight[399] = weight[best], close, close
    got = operators.candidates(x, build_sketch(weight, None), 1, isa=isa)
    assert got[[best, *places]].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_of_what_is_not_finite_nothing_is_left_out(value: float, dtype: torch.dtype, isa: int) -> None:
    weight, x = made(100, 32, 3, dtype)
    x[1, 5] = value
    assert bool(operators.candidates(x, build_sketch(weight, None), 1, isa=isa).all())


@pytest.mark.parametrize("isa", LEVELS)
def test_sums_that_may_overflow_are_all_computed(isa: int) -> None:
    weight, x = made(100, 32, 1, torch.float32)
    assert bool(operators.candidates(x * 1e38, build_sketch(weight, None), 1, isa=isa).all())
    assert bool(operators.candidates(x.half() * 3e4, build_sketch(weight.half(), None), 1, isa=isa).all())


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_and_the_least_numbers_are_ties(dtype: torch.dtype, isa: int) -> None:
    weight, x = made(100, 32, 1, dtype)
    sketch = build_sketch(weight, None)
    assert bool(operators.candidates(x * 0, sketch, 1, isa=isa).all())
    if dtype != torch.float16:
        assert bool(operators.candidates(x * 1e-37, sketch, 1, isa=isa).all())


def test_rows_beyond_their_limit_are_always_kept() -> None:
    weight, x = made(100, 32, 1, torch.float32)
    sketch = build_sketch(weight, None)
    certificate = sketch.certificate.clone()
    certificate[5, 40] = 0.0
    got = operators.candidates(x, dataclasses.replace(sketch, certificate=certificate), 1)
    assert int(got[40]) == 1 and int(got.sum()) < 50
