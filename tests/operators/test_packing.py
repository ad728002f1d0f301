"""Packing what fires: the kernels move the definition's very bits at every level, and refuse what does not fit."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.core.errors import ConfigError, ImplUnavailable, ShapeError
from lazyneuron.ops.native.build import ISA_LEVELS
from lazyneuron.ops.packing.operators import PLAIN, gather_fired, mark_fired, scatter_fired
from tests.kernels import LEVELS, NATIVE, needs_kernels

HERE = (PLAIN, *(ISA_LEVELS[level] for level in LEVELS))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def by_hand(z, zero, factor=None):
    """Which numbers are kept, one by one in Python."""
    rows = []
    for r, row in enumerate(z.double().tolist()):
        kept = []
        for j, v in enumerate(row):
            silent = v <= zero.left or zero.low <= v <= zero.high
            kept.append(not silent and not (factor is not None and float(factor[r, j]) <= 0))
        rows.append(kept)
    return rows


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(0, 5),
    width=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from(DTYPES),
    zero=st.sampled_from([ZeroInterval(0.0), ZeroInterval(0.25, 0.5, 0.75), ZeroInterval(low=0.0, high=0.0)]),
    rectified=st.booleans(),
    strided=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_every_level_packs_what_the_definition_says(tokens, width, density, dtype, zero, rectified, strided, seed):
    g = torch.Generator().manual_seed(seed)
    z = torch.rand(tokens, width, 2 if strided else 1, generator=g)[..., 0]
    z = torch.where(torch.rand(tokens, width, generator=g) < density, z + 0.01, -z).to(dtype)
    special = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf, 0.25, 0.5, 0.75], dtype=dtype)
    z.view(-1)[: min(8, z.numel())] = special[: z.numel()] if not strided else special[: min(8, z.numel())]
    factor = torch.randn(tokens, width, generator=g).to(dtype) if rectified else None
    kept = by_hand(z, zero, factor)
    wanted = [v for row, keep in zip(z.tolist(), kept, strict=True) for v, k in zip(row, keep, strict=True) if k]
    dense = torch.zeros(tokens, width, dtype=dtype)
    if tokens:
        dense = torch.where(torch.tensor(kept), z, dense)
    for impl in HERE:
        bits = mark_fired(z, zero, factor=factor, impl=impl)
        assert bits.shape == (tokens, (width + 7) // 8) and bits.dtype == torch.uint8
        spread = [[bool(int(row[j // 8]) >> (j % 8) & 1) for j in range(8 * len(row))] for row in bits]
        assert spread == [[*row, *[False] * (-width % 8)] for row in kept]
        values = gather_fired(z, bits, impl=impl)
        assert torch.equal(values.nan_to_num(9.0), torch.tensor(wanted, dtype=dtype).nan_to_num(9.0))
        back = scatter_fired(bits, values, (tokens, width), impl=impl)
        assert torch.equal(back.nan_to_num(9.0), dense.nan_to_num(9.0))


def test_leading_axes_are_tokens():
    z = torch.randn(2, 3, 4, 20, generator=torch.Generator().manual_seed(0))
    for impl in HERE:
        bits = mark_fired(z, ZeroInterval(0.0), impl=impl)
        assert torch.equal(scatter_fired(bits, gather_fired(z, bits, impl=impl), (2, 3, 4, 20), impl=impl), z.relu())


def test_an_end_between_two_numbers_keeps_what_lies_on_it():
    """0.1 is no float32: the end moves inwards, so that nothing outside is left out."""
    z = torch.tensor([[0.1, math.nextafter(0.1, 1.0), 0.09]])
    for impl in HERE:
        bits = mark_fired(z, ZeroInterval(0.1), impl=impl)
        assert int(bits) == 0b011  # 0.1 as float32 is larger than 0.1


def test_other_dtypes_take_the_definition():
    z = torch.randn(3, 9, dtype=torch.float64)
    bits = mark_fired(z, ZeroInterval(0.0))
    assert torch.equal(scatter_fired(bits, gather_fired(z, bits), (3, 9)), z.relu())
    if NATIVE:
        with pytest.raises(ImplUnavailable, match="float64 on cpu; use impl='torch'"):
            mark_fired(z, ZeroInterval(0.0), impl="native")
    with pytest.raises(ConfigError, match="impl is one of"):
        mark_fired(z, ZeroInterval(0.0), impl="fast")


@pytest.mark.parametrize("impl", HERE)
def test_what_does_not_fit_is_refused(impl):
    z = torch.randn(3, 12)
    bits = mark_fired(z, ZeroInterval(0.0), impl=impl)
    values = gather_fired(z, bits, impl=impl)
    beyond = bits.clone()
    beyond[1, 1] |= 128
    for call in (
        lambda: scatter_fired(bits, values[:-1].clone(), (3, 12), impl=impl),
        lambda: scatter_fired(beyond, torch.cat([values, values[:1]]), (3, 12), impl=impl),
        lambda: gather_fired(z, bits[:2], impl=impl),
        lambda: gather_fired(z, beyond, impl=impl),
    ):
        with pytest.raises((ShapeError, RuntimeError), match=r"bits|values"):
            call()


@needs_kernels
def test_threads_do_not_change_the_bits():
    z = torch.randn(700, 300, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            bits = mark_fired(z, ZeroInterval(0.0))
            found.append((bits, gather_fired(z, bits)))
    finally:
        torch.set_num_threads(before)
    for bits, values in found[1:]:
        assert torch.equal(bits, found[0][0]) and torch.equal(values, found[0][1])
