"""What is proved silent is silent: random and adversarial inputs against float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from lazyneuron.accelerate.slack.certificate import build_sketch, inner_zero_set, with_bias
from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.core.errors import AssumptionError, ShapeError
from lazyneuron.ops.sparse_mlp import native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock
from lazyneuron.ops.sparse_mlp.reference import certified_silent
from tests.kernels import needs_kernels

HIDDEN, WIDTH = 320, 72


def cases(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, biases and inputs; for the first inputs every pre-activation lies within 1e-7 of zero."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(HIDDEN, WIDTH, generator=generator) / WIDTH**0.5
    weight[0] = 0
    weight[1] = weight[2]
    weight[3, 5] = 1e4
    weight[4] *= 1e-30
    one_hot = torch.eye(WIDTH)[:8]
    x = torch.cat(
        [
            torch.randn(60, WIDTH, generator=generator),
            one_hot,
            torch.randn(8, WIDTH, generator=generator) * 1e30,
            torch.randn(8, WIDTH, generator=generator) * 1e-35,
            torch.full((2, WIDTH), 1e-42),
            torch.zeros(1, WIDTH),
        ]
    )
    aim = weight.double() @ x[seed % 60].double()
    nudge = (torch.rand(HIDDEN, generator=generator, dtype=torch.float64) * 2 - 1) * 1e-7
    return weight, (-aim + nudge).float(), x


def observed(weight: Tensor, bias: Tensor, x: Tensor, *, isa: int, planes: int, factor: float = 1.0) -> Tensor:
    """``relu(z)`` of every neuron as the kernel computes it: ``down`` is the identity."""
    relu = Activation("relu")
    packed = PackedBlock(
        sketch=build_sketch(weight, bias),
        first_rows=weight,
        first_bias=bias,
        up_rows=None,
        up_bias=None,
        down_rows=torch.eye(len(weight)),
        down_bias=None,
        activation=relu,
        zero=inner_zero_set(relu, torch.float32),
        added_bytes=0,
    )
    return native.sparse_mlp(packed if factor == 1.0 else packed.with_slack(factor), x, isa=isa, planes=planes)


def wrongly_silent(y: Tensor, weight: Tensor, bias: Tensor, x: Tensor) -> int:
    """Pairs that fire in float64 by more than fp32 summation can lose, and that came out as zero."""
    w, wide = weight.double(), x.double()
    z = wide @ w.T + bias.double()
    rounding = (WIDTH + 2) * 2.0**-24 * (wide.abs() @ w.abs().T + bias.double().abs()) + 1e-43
    return int(((z > rounding) & (y == 0)).sum())


@needs_kernels
@pytest.mark.parametrize("planes", [1, 2])
def test_no_neuron_that_fires_is_skipped(planes: int) -> None:
    native.op()
    pairs = 0
    for seed in range(6):
        weight, bias, x = cases(seed)
        for isa in range(int(torch.ops.lazyneuron.best_isa()) + 1):
            for rows in (x, x[seed : seed + 1], x[60:76]):
                assert wrongly_silent(observed(weight, bias, rows, isa=isa, planes=planes), weight, bias, rows) == 0
                pairs += rows.shape[0] * HIDDEN
    assert pairs >= 10**5


@needs_kernels
def test_without_slack_the_check_above_fails() -> None:
    wrong = 0
    for seed in range(6):
        weight, bias, x = cases(seed)
        wrong += wrongly_silent(observed(weight, bias, x, isa=0, planes=2, factor=0.0), weight, bias, x)
    assert wrong > 0


@pytest.mark.parametrize("seed", range(6))
def test_certified_means_in_the_zero_set(seed: int) -> None:
    weight, bias, x = cases(seed)
    for zero in (ZeroInterval(0.0), ZeroInterval(0.4), ZeroInterval(-2.0, -0.1, 0.3)):
        silent = certified_silent(build_sketch(weight, bias), x, zero)
        z = x.double() @ weight.double().T + bias.double()
        assert bool(zero.contains(z)[silent].all())
        assert float(silent.float().mean()) > 0.05


def test_the_sketch_reproduces_the_weight_within_its_error() -> None:
    weight, bias, _ = cases(0)
    sketch = build_sketch(weight, bias)
    scale, kept_bias, slack, *_ = sketch.certificate[:, :HIDDEN].double()
    error = (weight.double() - scale[:, None] * sketch.quantised_rows().double()).norm(dim=1)
    assert torch.equal(kept_bias.float(), bias)
    assert bool((error <= slack).all())
    assert bool((scale * 127 >= weight.double().abs().amax(1) * (1 - 1e-6)).all())


@pytest.mark.parametrize("bias", [0.0, -3.0, 1e20, -8e37, 3e38])
def test_another_bias_has_its_own_rounding_and_limit(bias: float) -> None:
    weight, first, _ = cases(0)
    moved = with_bias(build_sketch(weight, first), torch.full((HIDDEN,), bias))
    wanted = build_sketch(weight, torch.full((HIDDEN,), bias))
    assert torch.equal(moved.certificate[:4, :HIDDEN], wanted.certificate[:4, :HIDDEN])
    got, least = (s.certificate[4, :HIDDEN].double() for s in (moved, wanted))
    assert bool((got >= least * (1 - 2**-23)).all()) and bool((got <= least * 1.001 + 1e-5 * first.abs()).all())
    got, most = (s.certificate[5, :HIDDEN].double() for s in (moved, wanted))
    assert bool(((got <= most * (1 + 2**-20)) | (got < 0)).all())
    assert bool(((got >= most * 0.999) | (most < 0) | (most == 2.0**126)).all())  # the last: of rows of zeros


def test_what_is_not_finite_is_never_certified() -> None:
    weight, bias, x = cases(0)
    x[0, 0], x[1, 1] = float("nan"), float("inf")
    silent = certified_silent(build_sketch(weight, bias), x[:3], ZeroInterval(0.0))
    assert not bool(silent[:2].any()) and bool(silent[2].any())


def test_bad_weights_are_refused() -> None:
    with pytest.raises(AssumptionError, match="NaN or infinity"):
        build_sketch(torch.full((2, 2), float("nan")), None)
    with pytest.raises(ShapeError, match="non-empty floating-point matrix"):
        build_sketch(torch.zeros(2, 2, dtype=torch.int32), None)
    with pytest.raises(ShapeError, match="non-empty floating-point matrix"):
        build_sketch(torch.zeros(0, 2), None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "activation",
    [Activation("relu"), Activation("fatrelu", (0.3,)), Activation("thresholded_silu", (0.1,))],
    ids=lambda a: a.kind,
)
def test_the_inner_zero_set_holds_after_rounding(activation: Activation, dtype: torch.dtype) -> None:
    zero = inner_zero_set(activation, dtype)
    ends = [e for e in dataclasses.astuple(zero) if abs(e) < 1e30]
    z = torch.cat([torch.linspace(e - 0.05, e + 0.05, 20001, dtype=torch.float64) for e in ends])
    value = activation(z.to(dtype))
    assert bool((value[zero.contains(z)] == 0).all())
