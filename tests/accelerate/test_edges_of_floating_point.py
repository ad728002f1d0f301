"""Certificates where floating point ends: each hypothesis of the theorem kept by a check, or broken here on purpose."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.accelerate.slack.certificate import build_sketch
from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.core.errors import AssumptionError
from lazyneuron.ops.sparse_mlp import gather, native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock
from lazyneuron.ops.sparse_mlp.reference import certified_silent
from tests.accelerate.blocks import make_block
from tests.accelerate.fuzz.judge import dense, levels, skipped
from tests.kernels import needs_kernels

UPWARD = 0x800  # FE_UPWARD of x86


def plain(weight: Tensor, bias: Tensor | None, activation: Activation = Activation("relu")) -> MLPBlock:  # noqa: B008
    """A block with these deciding weights; `down` is the identity, so that its output is the hidden activation."""
    hidden, d_in = weight.shape
    up = nn.Linear(d_in, hidden, bias=bias is not None, dtype=weight.dtype)
    down = nn.Linear(hidden, hidden, bias=False, dtype=weight.dtype)
    up.weight.data, down.weight.data = weight, torch.eye(hidden, dtype=weight.dtype)
    if bias is not None:
        up.bias.data = bias
    sites = [LinearSite(name=name, module=m.requires_grad_(False)) for name, m in (("up", up), ("down", down))]
    return MLPBlock(name="block", up=sites[0], gate=None, down=sites[1], activation=activation)


def aimed(scale: float, *, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, biases and one input of that scale, such that half of the neurons fire by little, half by little not.

    The weights are multiples of one number, so that the sketch is exact and the input's own error is all there is.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (256, 96), generator=generator) * (size / 64)
    weight[:, 0] = 127 * size / 64
    x = torch.randn(1, 96, generator=generator) * scale
    z = (x.double() @ weight.double().T)[0]
    apart = torch.logspace(-5, 1, 256, dtype=torch.float64) * torch.tensor([1.0, -1.0]).repeat(128)
    return weight, (-z + apart * z.abs().mean()).float(), x


def wrongly_skipped(packed: PackedBlock, x: Tensor) -> tuple[int, int]:
    """How many neurons are skipped, by definition or the level that skips fewest, and how many of any are positive."""
    bias = 0.0 if packed.first_bias is None else packed.first_bias.double()
    fires = x.double() @ packed.first_rows.double().T + bias > 0
    silent = [skipped(packed, x, isa=isa, planes=planes) for isa, planes in levels()]
    silent.append(certified_silent(packed.sketch, x, packed.zero))
    return min(int(s.sum()) for s in silent), int(sum((s & fires).sum() for s in silent))


def outputs(packed: PackedBlock, x: Tensor) -> Iterator[Tensor]:
    """Of the path without kernels, and of the kernels at every level."""
    yield gather.sparse_mlp(packed, x)
    for isa, planes in levels():
        yield native.sparse_mlp(packed, x, isa=isa, planes=planes)


@needs_kernels
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("width", [128, 2048, 8192])
def test_no_sum_of_the_largest_numbers_of_a_sketch_leaves_its_integers(width: int, sign: float) -> None:
    weight = torch.ones(70, width)
    bias = -width * sign + torch.linspace(-0.1, 0.1, 70) * width  # half of the neurons fire
    packed = pack(plain(weight, bias))
    for tokens in (1, 2, 5):
        skips, wrong = wrongly_skipped(packed, torch.full((tokens, width), sign))
        assert wrong == 0
        assert skips >= 30 * tokens


@pytest.fixture
def flushed() -> Iterator[None]:
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-27, 1e-24, 1e-20, 1e-18, 1.0, 1e18, 1e33])
def test_no_scale_of_the_input_hides_its_quantisation_error(scale: float) -> None:
    weight, bias, x = aimed(scale)
    some, wrong = wrongly_skipped(pack(plain(weight, bias)), x)
    assert wrong == 0 and (some > 20 or scale < 1e-35)  # at the end the slack's constant part rules


@pytest.mark.usefixtures("flushed")
@pytest.mark.parametrize(("scale", "size"), [(1e-37, 0.1), (2e-35, 1e5), (1e-24, 0.1), (1.0, 0.1), (2e37, 0.1)])
def test_flushing_to_zero_loses_neither_norm_nor_grid(scale: float, size: float) -> None:
    """Of the second input the steps would be subnormal: it must not be taken for zero."""
    weight, bias, x = aimed(scale, size=size)
    some, wrong = wrongly_skipped(pack(plain(weight, bias)), x)
    assert wrong == 0 and (some > 20 or not 1e-35 < scale < 1e30)


def _overflowing() -> Tensor:
    weight = torch.full((64, 256), 1e-3)
    weight[:, :128] *= -0.99
    return weight


def test_a_sketch_sum_that_overflows_proves_nothing() -> None:
    packed = pack(plain(_overflowing(), None))
    for x in (torch.full((2, 256), 1e35), torch.full((2, 256), 3e38)):
        assert wrongly_skipped(packed, x) == (0, 0)


@needs_kernels
def test_a_sketch_sum_that_overflows_proves_nothing_without_its_limit() -> None:
    packed = pack(plain(_overflowing(), None))
    unlimited = packed.sketch.certificate.clone()
    unlimited[5] = math.inf
    packed = dataclasses.replace(packed, sketch=dataclasses.replace(packed.sketch, certificate=unlimited))
    x = torch.full((2, 256), 1e35)
    assert not any(bool(skipped(packed, x, isa=isa, planes=planes).any()) for isa, planes in levels())


def test_partial_sums_that_overflow_in_the_dense_layer_are_computed() -> None:
    """The hypothesis of finite partial sums, broken: in exact arithmetic every neuron is far below zero."""
    weight = torch.tensor([[1.0, 1.0, -1.0, -1.0, -1.0]]).repeat(64, 1)
    block = plain(weight, None)
    x = torch.full((3, 5), 2e38)
    assert bool((x.double() @ weight.double().T < 0).all())
    assert bool((F.linear(x, weight) > 0).any())
    assert wrongly_skipped(pack(block), x) == (0, 0)


def test_numbers_of_the_certificate_are_never_rounded_down() -> None:
    weight = torch.full((64, 16), 3e-42)
    scale, _, slack, quantised, absolute, _ = build_sketch(weight, torch.full((64,), -1e-43)).certificate
    assert bool((scale == 0).all())
    assert bool((torch.stack([slack, quantised, absolute]) >= 2.0**-126).all())
    assert bool((slack.double() >= weight.double().norm(dim=1)).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", [Activation("fatrelu", (3.5,)), Activation("thresholded_silu", (0.1,))])
def test_rounding_twice_is_done_where_torch_does_it_and_covered_everywhere(
    dtype: torch.dtype, activation: Activation
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(512, 4)
    weight[:, :2] = torch.randn(512, 2, generator=generator) * torch.tensor([4.0, 0.02])
    bias = torch.randn(512, generator=generator) * 8
    block = plain(weight.to(dtype), bias.to(dtype), activation)
    x = torch.randn(2, 24, 8, generator=generator).to(dtype)[..., :4]
    x[..., 2:] = 0
    once, twice = dense(block, x.contiguous())[0], dense(block, x)[0]
    assert bool(((once == 0) != (twice == 0)).any())
    packed = pack(block)
    for isa, planes in levels():
        got = native.sparse_mlp(packed, x, isa=isa, planes=planes)
        assert torch.equal(got == 0, twice == 0)
        assert torch.equal(native.sparse_mlp(packed, x.contiguous(), isa=isa, planes=planes) == 0, once == 0)
        silent = skipped(packed, x.reshape(-1, 4).float(), isa=isa, planes=planes).reshape(once.shape)
        assert bool(silent.any()) and not bool((silent & ((once != 0) | (twice != 0))).any())
        row = torch.stack([x[0, 0], x[0, 0]], -1)[..., 0]  # one axis, strided
        assert torch.equal(native.sparse_mlp(packed, row, isa=isa, planes=planes), dense(block, row)[1])
    assert torch.equal(gather.sparse_mlp(packed, x) == 0, twice == 0)


def same_marks(got: Tensor, wanted: Tensor) -> bool:
    return torch.equal(got.isnan(), wanted.isnan()) and torch.equal(got.isinf(), wanted.isinf())


@pytest.mark.parametrize("rectifies_up", [False, True])
@pytest.mark.parametrize(("gate", "up"), [(-1.0, 1.0), (-1.0, -1.0), (1.0, 1.0), (1.0, -1.0)])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gated_block_is_nan_where_dense_is(
    rectifies_up: bool, gate: float, up: float, bad: float, dtype: torch.dtype
) -> None:
    block = make_block(8, 1, 4, gated=True, rectifies_up=rectifies_up, dtype=dtype)  # one neuron: nothing else is NaN
    assert block.gate is not None
    block.gate.module.weight.data[0, 3], block.up.module.weight.data[0, 3] = gate, up
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[2, 3] = bad
    wanted = dense(block, x)[1]
    assert all(same_marks(got, wanted) for got in outputs(pack(block), x))


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 3e3), (torch.bfloat16, 1e38), (torch.float32, 1e38)])
def test_an_up_that_overflows_behind_a_closed_gate_is_nan_as_in_dense(dtype: torch.dtype, size: float) -> None:
    block = make_block(16, 64, 8, gated=True, dtype=dtype, bias=False)
    assert block.gate is not None
    block.gate.module.weight.data = torch.full((64, 16), -1e-30 if size > 1e9 else -1e-3, dtype=dtype)
    block.up.module.weight.data = torch.full((64, 16), size, dtype=dtype)
    x = torch.tensor([1e-3, 2.0, 1e-3])[:, None].repeat(1, 16).to(dtype)
    wanted = dense(block, x)[1]
    assert wanted.isnan().all(1).tolist() == [False, True, False]
    assert all(same_marks(got, wanted) for got in outputs(pack(block), x))


@pytest.mark.parametrize("kind", ["thresholded_silu", "thresholded_gelu", "thresholded_gelu_tanh"])
def test_a_smooth_function_of_minus_infinity_is_nan_as_in_dense(kind: str) -> None:
    weight = torch.tensor([[-1.0, 0.0], [0.0, -1.0]]).repeat(32, 1).half()
    block = plain(weight, torch.full((64,), -6e4).half(), Activation(kind, (0.01,)))
    x = torch.tensor([[1e4, 1.0], [10.0, 10.0]]).half()
    wanted = dense(block, x)[1]
    assert wanted.isnan().any(1).tolist() == [True, False]
    assert all(same_marks(got, wanted) for got in outputs(pack(block), x))


@needs_kernels
def test_another_rounding_mode_certifies_nothing() -> None:
    packed = pack(make_block(32, 128, 32))
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(3))
    math_library = ctypes.CDLL("libm.so.6")
    counts, upward = native.new_counts(), native.new_counts()
    native.sparse_mlp(packed, x, counts=counts)
    math_library.fesetround(UPWARD)
    try:
        native.sparse_mlp(packed, x, counts=upward)
    finally:
        math_library.fesetround(0)
    assert int(upward[0]) == 4 * 128 > int(counts[0])


def test_a_dense_layer_of_less_than_float32_is_not_what_is_promised() -> None:
    """Products in bfloat16, as ``torch.set_float32_matmul_precision("medium")`` allows, round more than the slack."""
    weight, bias = torch.tensor([[127.0, -127.0]]).repeat(64, 1), torch.full((64,), 0.05)
    x = torch.tensor([[1.0, 1.0 + 2.0**-10]])
    packed = pack(plain(weight, bias))
    assert bool((F.linear(x, weight, bias) < 0).all())
    assert bool((F.linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()) > 0).all())
    assert bool(certified_silent(packed.sketch, x, packed.zero).all())
    for isa, planes in levels():
        assert planes == 1 or bool(skipped(packed, x, isa=isa, planes=planes).all())


@pytest.mark.parametrize("site", ["weight", "bias"])
def test_an_up_that_is_not_finite_is_refused(site: str) -> None:
    block = make_block(8, 16, 8, gated=True)
    getattr(block.up.module, site).data.view(-1)[3] = math.inf
    with pytest.raises(AssumptionError, match="NaN or infinity"):
        pack(block)
