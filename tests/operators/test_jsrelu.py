"""JSReLU's native operator against its definition, bit for bit, and as a citizen of torch."""

import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyneuron.induce import JSReLU
from lazyneuron.ops.jsrelu.native import fused, register
from lazyneuron.ops.jsrelu.operator import plain
from lazyneuron.ops.jsrelu.reference import reference, reference_backward
from lazyneuron.ops.native import load

native = pytest.mark.skipif(not load.status().available, reason="the native kernels are not built")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SPECIAL = [-math.inf, -257.0, -1e-30, -0.0, 0.0, 1e-30, 0.5, 255.0, 360.0, math.inf, math.nan]


def both(x: torch.Tensor, mix: float, cap: float, isa: int) -> tuple[torch.Tensor, ...]:
    g = torch.linspace(-3, 3, max(x.numel(), 1)).to(x.dtype)[: x.numel()].reshape(x.shape)
    got = fused(x, mix, cap, isa=isa)
    slope = torch.ops.lazyneuron.jsrelu_backward(g, x, mix, cap, isa)
    return got, reference(x, mix, cap), slope, reference_backward(g, x, mix, cap)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    integers = torch.int32 if a.dtype == torch.float32 else torch.int16
    whole = torch.equal(a.isnan(), b.isnan()) and a.dtype == b.dtype and a.shape == b.shape
    return whole and torch.equal(a.contiguous().view(integers)[~a.isnan()], b.contiguous().view(integers)[~b.isnan()])


@native
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 5),
    width=st.sampled_from([0, 1, 15, 16, 17, 257, 300]),
    dtype=st.sampled_from(DTYPES),
    mix=st.sampled_from([0.3, 1.0, 2.5]),
    cap=st.sampled_from([math.inf, 0.7, 4.0]),
    isa=st.integers(-1, 3),
    turned=st.booleans(),
)
def test_the_operator_is_the_definition(rows, width, dtype, mix, cap, isa, turned):
    register()
    isa = min(isa, int(torch.ops.lazyneuron.best_isa()))
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows * width + 1)).mul(4).to(dtype)
    if turned:
        x = x.t()
    got, wanted, slope, wanted_slope = both(x, mix, cap, isa)
    assert same_bits(got, wanted)
    assert same_bits(slope, wanted_slope)


@native
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_on_every_level(dtype):
    x = torch.tensor(SPECIAL * 7, dtype=dtype)
    register()
    for isa in range(int(torch.ops.lazyneuron.best_isa()) + 1):
        got, wanted, slope, wanted_slope = both(x, 1.0, math.inf, isa)
        assert same_bits(got, wanted)
        assert same_bits(slope, wanted_slope)


@native
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_opcheck():
    register()
    x = torch.randn(3, 17, requires_grad=True)
    for cap in (math.inf, 0.5):
        torch.library.opcheck(torch.ops.lazyneuron.jsrelu.default, (x, 0.7, cap, -1))
        torch.library.opcheck(torch.ops.lazyneuron.jsrelu_backward.default, (torch.randn(3, 17), x, 0.7, cap, -1))


@native
@pytest.mark.parametrize("cap", [math.inf, 0.5])
def test_gradients_of_both_orders(cap):
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    leaf, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    results = []
    for side, function in ((leaf, fused), (wide, plain)):
        (first,) = torch.autograd.grad(function(side, 0.7, cap).square().sum(), side, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), side)
        results.append((first.detach().double(), second.double()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@native
def test_bad_input_is_refused():
    with pytest.raises(RuntimeError, match="float32, bfloat16 and float16"):
        fused(torch.ones(3, dtype=torch.float64), 1.0, math.inf)
    with pytest.raises(RuntimeError, match="same shape"):
        torch.ops.lazyneuron.jsrelu_backward(torch.ones(2), torch.ones(3), 1.0, math.inf, -1)
    with pytest.raises(RuntimeError, match="above what this processor runs"):
        fused(torch.ones(3), 1.0, math.inf, isa=9)


@native
def test_the_module_takes_the_operator():
    x = torch.randn(5, requires_grad=True)
    assert "fused" in type(JSReLU()(x).grad_fn).__name__.lower()
    assert "plain" in type(JSReLU()(x.double()).grad_fn).__name__.lower()
    assert "relu" in type(JSReLU(0.0)(x).grad_fn).__name__.lower()


def test_without_kernels_the_module_computes_the_same():
    code = (
        "import torch; from lazyneuron.induce import JSReLU; from lazyneuron.ops.jsrelu.native import available;"
        "x = torch.linspace(-3, 3, 11).requires_grad_();"
        "y = JSReLU(0.5, 2.0)(x); y.sum().backward(); print(available(), y.tolist(), x.grad.tolist())"
    )
    environment = {**os.environ, "LAZYNEURON_NATIVE": "off"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    x = torch.linspace(-3, 3, 11).requires_grad_()
    y = JSReLU(0.5, 2.0)(x)
    y.sum().backward()
    assert out.stdout.strip() == f"() {y.tolist()} {x.grad.tolist()}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # by torch.compile itself
def test_compiled_by_inductor():
    x = torch.randn(7, 33, requires_grad=True)
    for module in (JSReLU(), JSReLU(0.3, 0.8)):
        ours, wanted = torch.compile(module, fullgraph=True)(x), module(x)
        torch.testing.assert_close(ours, wanted)
        torch.testing.assert_close(torch.autograd.grad(ours.sum(), x), torch.autograd.grad(wanted.sum(), x))
