"""Norms and attention of single queries are their definitions at every level."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lazyneuron.ops.decoding import operators, reference
from tests.kernels import NATIVE, needs_kernels

pytestmark = needs_kernels
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LEVELS = range(1 + (torch.ops.lazyneuron.best_isa() if NATIVE and operators.operators() else 0))


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def steps(got: Tensor, wanted: Tensor) -> float:
    """The largest difference, in last places of the dtype."""
    step = torch.finfo(got.dtype).eps
    return float(((got.double() - wanted.double()).abs() / (step * wanted.double().abs().clamp_min(1e-3))).max())


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("offset", "rounds_first"), [(0.0, True), (0.0, False), (1.0, False)])
@pytest.mark.parametrize("width", [1, 15, 16, 100])
def test_a_norm(isa: int, dtype: torch.dtype, offset: float, rounds_first: bool, width: int) -> None:
    x, weight = normal(2, 3, width, dtype=dtype), normal(width, dtype=dtype, seed=1)
    got = operators.operators().rms_norm(x, weight, 1e-5, offset, rounds_first, isa)
    wanted = reference.rms_norm(x.double(), weight, eps=1e-5, offset=offset)
    wanted = wanted if not rounds_first else reference.rms_norm(x, weight, eps=1e-5, offset=offset, rounds_first=True)
    assert steps(got, wanted) < (16 if dtype == torch.float32 else 2.1)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "heads", "shared", "keys", "width"),
    [(1, 1, 1, 1, 16), (2, 4, 4, 15, 32), (3, 8, 2, 33, 64), (1, 6, 1, 700, 80)],
)
def test_attention(isa: int, dtype: torch.dtype, batch: int, heads: int, shared: int, keys: int, width: int) -> None:
    q = 3 * normal(batch, heads, 1, width, dtype=dtype)
    k, v = (normal(batch, shared, keys, width, dtype=dtype, seed=s) for s in (1, 2))
    got = operators.operators().single_query_attention(q, k, v, width**-0.5, isa)
    wanted = reference.single_query_attention(q.double(), k, v, width**-0.5)
    assert got.shape == (batch, 1, heads, width)
    assert not batch or (got.double() - wanted).abs().max() < {torch.float32: 3e-6, torch.float16: 2e-3}.get(
        dtype, 1.6e-2
    )


@pytest.mark.parametrize("isa", LEVELS)
def test_attention_far_apart_and_not_finite(isa: int) -> None:
    q, k = torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 3, 16)
    q[..., 0] = 1.0
    k[0, 0, :, 0] = torch.tensor([0.0, 1000.0, -3e38])  # the others weigh nothing, and nothing overflows
    v = normal(1, 1, 3, 16, dtype=torch.float32)
    attend = operators.operators().single_query_attention
    assert torch.equal(attend(q, k, v, 1.0, isa)[0, 0, 0], v[0, 0, 1])
    k[0, 0, 0, 0] = math.nan
    assert attend(q, k, v, 1.0, isa).isnan().all()


def test_strided_inputs_are_read_as_they_are() -> None:
    q = normal(2, 1, 4, 32, dtype=torch.bfloat16).transpose(1, 2)
    k = normal(2, 9, 2, 32, dtype=torch.bfloat16, seed=1).transpose(1, 2)
    got = operators.operators().single_query_attention(q, k, k, 0.2)
    same = operators.operators().single_query_attention(q.contiguous(), k.contiguous(), k.contiguous(), 0.2)
    assert torch.equal(got, same)


def test_arguments_that_do_not_fit_are_refused() -> None:
    q, k = normal(1, 4, 1, 32, dtype=torch.float32), normal(1, 2, 9, 32, dtype=torch.float32)
    attend = operators.operators().single_query_attention
    for bad, words in (
        ((q.expand(1, 4, 2, 32), k, k), "Single queries"),
        ((q[..., :20], k, k), "multiple of 16"),
        ((q, k[:, :, :0], k), "no keys"),
        ((q[:, :3], k, k), "multiple of those"),
        ((q, k, k[:, :, :5]), "values"),
        ((q, k.double(), k), "keys"),
    ):
        with pytest.raises(RuntimeError, match=words):
            attend(*bad, 1.0)
    with pytest.raises(RuntimeError, match="weight"):
        operators.operators().rms_norm(q, normal(31, dtype=torch.float32), 1e-5, 0.0, False)
