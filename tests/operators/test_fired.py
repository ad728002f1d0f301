"""Products with what fires against those of the dense activation in float64, at every level of the kernels."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.ops.fired.operators import PLAIN, fired_columns, fired_dots, fired_rows
from lazyneuron.ops.native.build import ISA_LEVELS
from lazyneuron.ops.packing.operators import gather_fired, mark_fired
from tests.accelerate.comparison import check_close
from tests.kernels import LEVELS, needs_kernels

HERE = (PLAIN, *(ISA_LEVELS[level] for level in LEVELS))


@settings(max_examples=50, deadline=None)
@given(
    tokens=st.sampled_from([0, 1, 3, 17, 300]),  # 300 and 600: more than the kernels take at once
    neurons=st.sampled_from([1, 8, 70, 256, 600]),
    width=st.sampled_from([16, 48, 96, 400, 784]),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    strided=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_every_level_gives_the_dense_products(tokens, neurons, width, density, strided, seed):
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(tokens, neurons, generator=g) * (torch.rand(tokens, neurons, generator=g) < density)
    bits = mark_fired(h, ZeroInterval(low=0.0, high=0.0), impl=PLAIN)
    values = gather_fired(h, bits, impl=PLAIN)
    dense = torch.randn(tokens, width, generator=g)
    rows = torch.randn(width, neurons, generator=g).t() if strided else torch.randn(neurons, width, generator=g)
    along_rows, along_columns = h.double() @ rows.double(), h.double().t() @ dense.double()
    dots = (dense.double() @ rows.double().t())[h != 0]
    for impl in HERE:
        check_close(fired_rows(bits, values, rows, impl=impl), along_rows.float(), length=neurons)
        check_close(fired_columns(bits, values, dense, neurons, impl=impl), along_columns.float(), length=tokens + 1)
        check_close(fired_dots(bits, dense, rows, impl=impl), dots.float(), length=width)


@needs_kernels
def test_threads_do_not_change_the_bits():
    g = torch.Generator().manual_seed(0)
    h, x, w = torch.randn(300, 700, generator=g), torch.randn(300, 80, generator=g), torch.randn(700, 80, generator=g)
    bits = mark_fired(h, ZeroInterval(1.0))
    values = gather_fired(h, bits)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append((fired_rows(bits, values, w), fired_columns(bits, values, x, 700), fired_dots(bits, x, w)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for later in found[1:] for one, other in zip(later, found[0], strict=True))


@needs_kernels
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_reaches_the_results_that_it_belongs_to_alone(bad):
    h = torch.ones(3, 40)
    h[1, 7] = bad
    bits = mark_fired(h, ZeroInterval(low=0.0, high=0.0))
    values = gather_fired(h, bits)
    rows, columns = fired_rows(bits, values, torch.ones(40, 16)), fired_columns(bits, values, torch.ones(3, 16), 40)
    assert rows.isfinite().all(1).tolist() == [True, False, True]
    assert columns.isfinite().all(1).tolist() == [j != 7 for j in range(40)]


@needs_kernels
def test_other_widths_and_dtypes_take_the_definition_or_are_refused_by_name():
    bits = mark_fired(torch.ones(2, 8), ZeroInterval(0.0))
    for rows in (torch.ones(8, 20), torch.ones(8, 16, dtype=torch.float64)):
        values = torch.ones(16, dtype=rows.dtype)
        assert torch.equal(fired_rows(bits, values, rows), torch.full((2, rows.shape[1]), 8.0, dtype=rows.dtype))
        with pytest.raises(ImplUnavailable, match="multiple of 16 features"):
            fired_rows(bits, values, rows, impl="native")
