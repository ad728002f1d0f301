"""Hessian estimates against explicit Hessians."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.explain import sharpness
from lazyneuron.induce import JSReLU


class Quadratic(nn.Module):
    """The loss ``theta^T A theta / 2 + b theta`` scaled by each sample, as a model's output."""

    def __init__(self, a: torch.Tensor) -> None:
        super().__init__()
        self.a = a
        self.theta = nn.Parameter(torch.randn(len(a), dtype=torch.float64))

    def forward(self, scale: torch.Tensor) -> torch.Tensor:
        return scale * (self.theta @ self.a @ self.theta / 2 + self.theta.sum())


def each(output, _):
    return output


def symmetric(size, seed):
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (a + a.t()) / 2


@settings(max_examples=25)
@given(size=st.integers(1, 9), seed=st.integers(0, 1000))
def test_a_quadratic_loss_has_its_matrix(size, seed):
    a = symmetric(size, seed)
    scales = [torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)]
    found = sharpness(Quadratic(a), scales, each, draws=100, steps=size, seed=seed)
    assert found.top == pytest.approx(2 * float(torch.linalg.eigvalsh(a)[-1]), abs=1e-8)  # 2 is the mean scale
    assert found.top_residual < 1e-6 and found.parameters == size
    assert abs(found.trace - 2 * float(a.trace())) <= 6 * found.trace_error + 1e-9


def test_signs_make_the_trace_of_a_diagonal_exact():
    a = torch.diag(torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64))
    found = sharpness(Quadratic(a), [torch.ones(1, dtype=torch.float64)], each, draws=3, steps=0)
    assert found.trace == pytest.approx(2.5) and found.trace_error == pytest.approx(0, abs=1e-12)
    assert math.isnan(found.top) and found.steps == 0


def test_the_residual_bounds_the_distance_to_an_eigenvalue():
    a = symmetric(40, 5)
    exact = torch.linalg.eigvalsh(a)
    for steps in (2, 5, 10):
        found = sharpness(Quadratic(a), [torch.ones(1, dtype=torch.float64)], each, draws=0, steps=steps)
        assert found.top <= float(exact[-1]) + 1e-9
        assert float((exact - found.top).abs().min()) <= found.top_residual + 1e-9


@pytest.mark.parametrize("activation", [nn.Tanh, JSReLU])
def test_a_network_against_its_explicit_hessian(activation):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 2)).double()
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    names, values = zip(*model.named_parameters(), strict=True)

    def loss_at(*parameters):
        output = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))
        return (output - y).square().sum(-1).mean()

    rows = torch.autograd.functional.hessian(loss_at, tuple(values))
    explicit = torch.cat(
        [torch.cat([b.reshape(v.numel(), -1) for b in r], 1) for r, v in zip(rows, values, strict=True)]
    )
    parts = [(x[:2], y[:2]), (x[2:], y[2:])]
    found = sharpness(
        Pairs(model), parts, lambda o, b: (o - b[1]).square().sum(-1).mean(), draws=800, steps=len(explicit)
    )
    assert found.top == pytest.approx(float(torch.linalg.eigvalsh(explicit)[-1]), rel=1e-8)
    assert abs(found.trace - float(explicit.trace())) < 5 * found.trace_error


class Pairs(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, y):
        return self.net(x)


def test_fused_attention_and_dropout_are_no_obstacle_and_leave_no_trace():
    torch.manual_seed(0)
    sizes = dict(image_size=4, num_channels=1, patch_size=2, hidden_size=8, intermediate_size=16, num_labels=3)
    config = ViTConfig(**sizes, num_hidden_layers=1, num_attention_heads=2, hidden_dropout_prob=0.2)
    model = ViTForImageClassification(config).train()
    batch = {"pixel_values": torch.randn(4, 1, 4, 4), "labels": torch.tensor([0, 1, 2, 0])}
    before, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    found = sharpness(model, [batch], draws=2, steps=8)
    again = sharpness(model, [batch], draws=2, steps=8)
    assert found == again and found.top > 0 and math.isfinite(found.trace)
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.parameters(), strict=True))


def test_a_part_of_the_parameters_and_a_linear_loss():
    a = symmetric(4, 1)
    model = Quadratic(a)
    with pytest.raises(ConfigError, match="no parameter"):
        sharpness(model, [], parameters=[])
    with pytest.raises(DataError, match="no batches"):
        sharpness(model, [], each)
    linear = sharpness(nn.Linear(2, 1), [torch.randn(3, 2)], lambda o, _: o.mean(), draws=2, steps=2)
    assert (linear.trace, linear.top) == (0.0, 0.0)
