"""Every implementation of the op against its definition."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.thresholded import gelu
from lazyneuron.core.errors import AssumptionError
from lazyneuron.ops.sparse_mlp import gather, native, reference
from lazyneuron.ops.sparse_mlp.packed import PackedBlock
from tests.accelerate.blocks import make_block
from tests.accelerate.comparison import check_close
from tests.kernels import NATIVE, needs_kernels

ACTIVATIONS = (
    Activation("relu"),
    Activation("squared_relu"),
    Activation("jsrelu", (1.0, float("inf"))),
    Activation("jsrelu", (0.5, 1.0)),
    Activation("fatrelu", (0.3,)),
    Activation("fatrelu", (-0.2,)),
    Activation("thresholded_silu", (0.1,)),
    Activation("thresholded_silu", (0.4,)),
    Activation("thresholded_gelu", (0.05,)),
    Activation("thresholded_gelu_tanh", (0.05,)),
    Activation("offset_gelu", (-0.2, -0.1)),
    Activation("offset_gelu", (0.4, gelu(0.4))),
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def best_isa() -> int:
    return int(torch.ops.lazyneuron.best_isa()) if NATIVE else 0


def inputs(tokens: int, width: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


@needs_kernels
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_native_is_the_definition(data: st.DataObject) -> None:
    native.op()
    d_in, d_hidden, d_out = (data.draw(st.sampled_from([1, 3, 16, 37, 64, 130])) for _ in range(3))
    dtype = data.draw(st.sampled_from(DTYPES))
    activation = data.draw(st.sampled_from(ACTIVATIONS))
    smooth = activation.kind.startswith(("thresholded", "offset"))
    block = make_block(
        d_in,
        d_hidden,
        d_out,
        activation=activation,
        gated=data.draw(st.booleans()),
        rectifies_up=data.draw(st.booleans()),
        bias=data.draw(st.booleans()),
        shift=data.draw(st.sampled_from([-30.0, -1.5, 0.0, 30.0])),
        dtype=torch.float32 if smooth else dtype,  # a 16-bit threshold test may fall either way at its edge
    )
    packed = pack(block)
    tokens = data.draw(st.sampled_from([0, 1, 2, 3, 5, 17, 64, 65, 200, 300]))
    x = inputs(tokens, d_in, packed.dtype, seed=tokens)
    got = native.sparse_mlp(packed, x, planes=data.draw(st.integers(1, 2)), isa=data.draw(st.integers(0, best_isa())))
    wanted = reference.sparse_mlp(packed, x)
    check_close(got, wanted, length=d_in + d_hidden, magnitude=magnitude(packed, x))


def magnitude(packed: PackedBlock, x: torch.Tensor) -> torch.Tensor:
    """The block with every number replaced by its absolute value: relative to it no sum cancels."""
    z = F.linear(x.abs().double(), packed.first_rows.abs().double(), _absolute(packed.first_bias))
    h = packed.activation(z)
    if packed.up_rows is not None:
        h = h * F.linear(x.abs().double(), packed.up_rows.abs().double(), _absolute(packed.up_bias))
    return F.linear(h, packed.down_rows.abs().double().T, _absolute(packed.down_bias))


def _absolute(bias: torch.Tensor | None) -> torch.Tensor | None:
    return None if bias is None else bias.abs().double()


@pytest.mark.parametrize(("gated", "rectifies_up"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gather_is_the_definition(gated: bool, rectifies_up: bool, dtype: torch.dtype) -> None:
    packed = pack(make_block(48, 96, 40, gated=gated, rectifies_up=rectifies_up, dtype=dtype))
    for tokens in (0, 1, 9):
        x = inputs(tokens, 48, dtype)
        # torch rounds the product, then the sum with the bias
        check_close(gather.sparse_mlp(packed, x), reference.sparse_mlp(packed, x), length=144, roundings=1)


@needs_kernels
def test_strides_and_leading_axes_do_not_matter() -> None:
    packed = pack(make_block(24, 100, 24))
    x = inputs(40, 24, torch.float32)
    wanted = native.sparse_mlp(packed, x)
    assert torch.equal(native.sparse_mlp(packed, x.reshape(4, 10, 24)), wanted.reshape(4, 10, 24))
    assert torch.equal(native.sparse_mlp(packed, x.t().contiguous().t()), wanted)


@needs_kernels
def test_threads_and_repetition_do_not_matter() -> None:
    packed = pack(make_block(128, 512, 128))
    x = inputs(300, 128, torch.float32)
    before = torch.get_num_threads()
    try:
        outputs = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            outputs += [native.sparse_mlp(packed, x[:1]), native.sparse_mlp(packed, x[:24])]
    finally:
        torch.set_num_threads(before)
    for one, many in (outputs[0:2], outputs[2:4], outputs[4:6]):
        assert torch.equal(one, outputs[0]) and torch.equal(many, outputs[1])


@needs_kernels
def test_counts_are_of_what_happened() -> None:
    packed = pack(make_block(64, 256, 64))
    x, counts = inputs(50, 64, torch.float32), native.new_counts()
    native.sparse_mlp(packed, x, counts=counts)
    native.sparse_mlp(packed, x[:7], counts=counts)
    computed, fired, tokens, calls = counts.tolist()
    fires = reference.hidden(packed, x) != 0
    assert (tokens, calls) == (57, 2)
    assert fired == int(fires.sum() + fires[:7].sum())
    wanted = reference.computed(packed, x)
    assert fired <= computed <= 1.2 * int(wanted.sum() + wanted[:7].sum())


@needs_kernels
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", range(best_isa() + 1))
def test_what_is_not_finite_comes_out_as_in_dense(bad: float, dtype: torch.dtype, isa: int) -> None:
    block = make_block(40, 128, 40, dtype=dtype)
    x = inputs(3, 40, dtype)
    x[1, 7] = bad
    up, down = block.up.module, block.down.module
    wanted = down(torch.relu(up(x)))
    got = native.sparse_mlp(pack(block), x, isa=isa)
    assert torch.equal(torch.isnan(got), torch.isnan(wanted))
    assert torch.isfinite(got[[0, 2]]).all()


@pytest.mark.parametrize("layer", ["up", "down"])
def test_weights_that_are_not_finite_are_refused(layer: str) -> None:
    block = make_block(8, 16, 8)
    getattr(block, layer).module.weight.data[3, 2] = float("inf")
    with pytest.raises(AssumptionError, match="NaN or infinity"):
        pack(block)


@needs_kernels
def test_the_operator_passes_torchs_own_checks() -> None:
    packed = pack(make_block(8, 16, 8))
    arguments = (torch.randn(2, 8), *native.arguments(packed, native.new_counts(), planes=2))
    native.op()
    torch.library.opcheck(
        torch.ops.lazyneuron.sparse_mlp.default, arguments, test_utils=("test_schema", "test_faketensor")
    )


def run(packed: PackedBlock, x: torch.Tensor) -> torch.Tensor:
    """The best implementation that is here."""
    return (native if NATIVE else gather).sparse_mlp(packed, x)


def _dropped(packed: PackedBlock, x: torch.Tensor) -> torch.Tensor:
    """One neuron is forgotten: of those that fire, the one that fires for the fewest tokens."""
    times = (reference.hidden(packed, x) != 0).sum(0)
    rows = packed.down_rows.clone()
    rows[int(torch.where(times > 0, times, len(x) + 1).argmin())] = 0
    return run(dataclasses.replace(packed, down_rows=rows), x)


def _neighbour(packed: PackedBlock, x: torch.Tensor) -> torch.Tensor:
    """One neuron takes the row behind its own."""
    i = int((reference.hidden(packed, x) != 0).sum(0).argmax())
    rows = packed.down_rows.clone()
    rows[i] = rows[(i + 1) % len(rows)]
    return run(dataclasses.replace(packed, down_rows=rows), x)


def _other_activation(packed: PackedBlock, x: torch.Tensor) -> torch.Tensor:
    return run(dataclasses.replace(packed, activation=Activation("jsrelu", (0.05, float("inf")))), x)


def _narrow_sums(packed: PackedBlock, x: torch.Tensor) -> torch.Tensor:
    """A sum that is rounded once on its way: to the model's dtype, or to float16 for float32."""
    h, down = reference.hidden(packed, x), packed.down_rows.double()
    half, narrow = h.shape[1] // 2, torch.float16 if packed.dtype == torch.float32 else packed.dtype
    first = (h[:, :half] @ down[:half]).to(narrow).double()
    return (first + h[:, half:] @ down[half:] + packed.down_bias.double()).to(packed.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", [_dropped, _neighbour, _other_activation, _narrow_sums])
@pytest.mark.parametrize("gated", [False, True])
def test_the_comparison_notices_planted_faults(
    fault: Callable[[PackedBlock, torch.Tensor], torch.Tensor], dtype: torch.dtype, gated: bool
) -> None:
    packed = pack(make_block(64, 256, 64, gated=gated, dtype=dtype))
    x = inputs(32, 64, dtype)
    wanted = reference.sparse_mlp(packed, x)
    for roundings in (0, 1) if NATIVE else (1,):  # torch rounds the product, then the sum with the bias
        check_close(run(packed, x), wanted, length=320, roundings=roundings)
        if roundings == 0 or fault is not _narrow_sums:  # which is one rounding more
            with pytest.raises(AssertionError):
                check_close(fault(packed, x), wanted, length=320, roundings=roundings)


def test_a_16_bit_element_may_be_off_by_a_step_and_not_by_a_hundredth() -> None:
    wanted = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    got = wanted.clone()
    got[3, 5] = got[3, 5] + (0.02 if abs(float(got[3, 5])) < 0.5 else 0.04)
    with pytest.raises(AssertionError):
        check_close(got, wanted, length=600)
