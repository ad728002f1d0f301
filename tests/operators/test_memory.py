"""Fresh memory holds NaN while tests run: what Python allocates, and what the operators allocate."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.profiler import profile

from tests.kernels import needs_kernels
from tests.operators.calls import CALLS, operator, written

WRITE_BESIDE = (
    "sparse_mlp",
    "quantised_mlp",
    "attention_step",
    "decoder_layers",
)  # counts or a cache, and return what they allocate
ALLOCATE = [n for n in CALLS if not n.startswith("best") and n not in ("bucket_rehash", "bucket_advise")]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_fresh_tensors_hold_nan(dtype: torch.dtype) -> None:
    x = torch.ones(3, 5, dtype=dtype)
    for fresh in (
        torch.empty(3, 5, dtype=dtype),
        torch.empty_like(x),
        x.new_empty(3, 5),
        x.new_empty_strided((2,), (3,)),
    ):
        assert bool(fresh.isnan().all())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint8])
def test_fresh_whole_numbers_are_the_largest(dtype: torch.dtype) -> None:
    assert bool((torch.empty(7, dtype=dtype) == torch.iinfo(dtype).max).all())


@needs_kernels
@pytest.mark.parametrize("name", ALLOCATE)
def test_what_an_operator_allocates_is_filled_before_it_is_written(name: str) -> None:
    """Its allocations go through torch's own, by the stable ABI: each is followed by the fill."""
    arguments = CALLS[name]()
    with profile(use_kineto=False) as seen:
        operator(name)(*arguments.values())
    events = [e.name for e in seen.function_events if e.name in ("aten::empty", "aten::empty_strided", "aten::fill_")]
    allocated = [name for name in events if name != "aten::fill_"]
    writes = written(operator(name)) and name.split(maxsplit=1)[0] not in WRITE_BESIDE
    if writes or str(operator(name)._schema.returns[0].type) == "int":
        assert not events  # it writes what it is given, or answers with a number
    else:
        assert allocated and len(events) == 2 * len(allocated)
