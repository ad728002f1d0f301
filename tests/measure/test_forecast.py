"""Forecasts of density against closed forms, and against what fires."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.measure import gaussian_rates, measure
from tests.measure.networks import Gated, Plain, block_of, set_linear


def test_normal_inputs_have_normal_pre_activations() -> None:
    """By hand: z = 2 x0 - x1 + 0.5 with means 1, 3 and covariances 1, 0.5, 4 has mean -0.5 and variance 6."""
    model = Plain(2, 2)
    set_linear(model.up, [[2.0, -1.0], [0.0, 0.0]], [0.5, 1.0])
    rates = gaussian_rates(block_of(model), torch.tensor([1.0, 3.0]), torch.tensor([[1.0, 0.5], [0.5, 4.0]]))
    assert rates.tolist() == pytest.approx([float(stats.norm.sf(0.5 / math.sqrt(6))), 1.0])


@pytest.mark.parametrize(
    ("kind", "parameters", "ends"),
    [
        ("relu", (), (0.0, None, None)),
        ("fatrelu", (0.7,), (0.7, None, None)),
        ("hardswish", (), (-3.0, None, None)),
        ("silu", (), (None, None, None)),
    ],
)
def test_each_zero_interval_is_what_counts(kind: str, parameters: tuple, ends: tuple) -> None:
    model = Plain(3, 1, kind, parameters)
    set_linear(model.up, [[1.0, 2.0, -2.0]], [0.2])
    (rate,) = gaussian_rates(block_of(model), torch.zeros(3), torch.eye(3)).tolist()
    assert rate == pytest.approx(1.0 if ends[0] is None else float(stats.norm.sf((ends[0] - 0.2) / 3)))


@pytest.mark.parametrize("model", [Plain(16, 40), Plain(16, 40, "fatrelu", (0.5,)), Gated(16, 40)])
def test_it_agrees_with_what_fires_on_gaussian_inputs(model: torch.nn.Module) -> None:
    torch.manual_seed(0)
    mixing = torch.randn(16, 16)
    x = torch.randn(4, 5000, 16) @ mixing.T + 0.3
    report = measure(model, x.split(1), blocks=[block_of(model)], forecast="gaussian")
    (block,) = report.blocks
    assert block.forecast.mean_error == pytest.approx(float((block.forecast.rates - block.firing_rates).abs().mean()))
    assert block.forecast.largest_error < 5 * 0.5 / math.sqrt(20_000)
    exact = gaussian_rates(block_of(model), torch.full((16,), 0.3), mixing @ mixing.T)
    assert float((block.forecast.rates - exact).abs().max()) < 0.02
    assert f"{block.forecast.density:.4f} forecast (gaussian), {block.density:.4f} measured" in str(report)
    assert report.to_data()["blocks"][0]["forecast"]["density"] == block.forecast.density
    plain = measure(model, x.split(1), blocks=[block_of(model)]).blocks[0]
    assert plain.forecast is None and plain.firing_counts.equal(block.firing_counts)


def test_skewed_inputs_need_their_skewness() -> None:
    """A sum of 8 exponentials less its mean is positive with probability Pr[Gamma(8) > 8] = .4530, not .5."""
    torch.manual_seed(0)
    model = Plain(8, 1)
    set_linear(model.up, [[1.0] * 8], [-8.0])
    x = torch.distributions.Exponential(1.0).sample((1, 200_000, 8))
    exact = float(stats.gamma.sf(8, 8))
    found = {
        law: measure(model, [x], blocks=[block_of(model)], forecast=law).blocks[0].forecast.density
        for law in ("gaussian", "empirical")
    }
    assert abs(found["gaussian"] - exact) > 0.04 and abs(found["empirical"] - exact) < 0.004


def test_padding_and_several_calls_do_not_matter() -> None:
    torch.manual_seed(0)
    model = Plain()
    x = torch.randn(3, 40, 6) + torch.arange(3).reshape(3, 1, 1)
    mask = torch.rand(3, 40) > 0.3
    padded = torch.where(mask[..., None], x, 1e6)
    batches = [{"x": a, "attention_mask": m} for a, m in zip(padded.split(1), mask.split(1), strict=True)]
    whole = measure(model, [x[mask][None]], blocks=[block_of(model)], forecast="empirical").blocks[0]
    parts = measure(model, batches, blocks=[block_of(model)], forecast="empirical").blocks[0]
    assert torch.allclose(whole.forecast.rates, parts.forecast.rates, atol=1e-6)
    assert whole.forecast.mean_error == pytest.approx(parts.forecast.mean_error, abs=1e-6)


def test_blocks_that_have_no_forecast_say_why() -> None:
    x = torch.randn(1, 5, 6)
    gated = Gated()
    rectified = dataclasses.replace(block_of(gated), rectifies_up=True, rectified_by_model=True)
    unknown = Plain()
    unknown.activation = Activation("other", function=torch.sin)
    largest = Plain(kind="top_k", parameters=(3,))
    for model, block, why in (
        (gated, rectified, "gate and up together"),
        (unknown, block_of(unknown), "is not known"),
        (largest, block_of(largest), "all pre-activations of a token"),
    ):
        found = measure(model, [x], blocks=[block], forecast="gaussian").blocks[0]
        assert found.forecast is None and why in found.notes[0] and found.tokens == 5
        with pytest.raises(ConfigError, match=why):
            gaussian_rates(block, torch.zeros(6), torch.eye(6))


def test_bad_forecasts_are_refused_in_a_sentence() -> None:
    model, large = Plain(), Plain()
    nn.init.constant_(large.up.weight, 10.0)
    with pytest.raises(ConfigError, match="'gaussian' or 'empirical', got 'normal'"):
        measure(model, [torch.randn(1, 2, 6)], blocks=[block_of(model)], forecast="normal")
    with pytest.raises(ConfigError, match="of exact zeros"):
        measure(model, [torch.randn(1, 2, 6)], blocks=[block_of(model)], forecast="gaussian", threshold=0.1)
    with pytest.raises(ShapeError, match=r"got \(5,\) and \(6, 6\)"):
        gaussian_rates(block_of(model), torch.zeros(5), torch.eye(6))
    with pytest.raises(DataError, match="not positive semidefinite"):
        gaussian_rates(block_of(model), torch.zeros(6), -torch.eye(6))
    with pytest.raises(DataError, match="NaN"):
        gaussian_rates(block_of(model), torch.full((6,), math.nan), torch.eye(6))
    for mean, covariance in ((1e308, 1.0), (0.0, 1e308)):
        with pytest.raises(DataError, match=r"of a pre-activation of block .* is not finite"):
            gaussian_rates(block_of(large), mean * torch.ones(6).double(), covariance * torch.eye(6).double())


@pytest.mark.parametrize("wrong", [None, [0.0] * 6, np.zeros(6), 1.0, Plain])
def test_what_are_no_moments_of_a_block(wrong: object) -> None:
    block = block_of(Plain())
    with pytest.raises(DataError, match=r"^The mean of the inputs is a torch\.Tensor, got .*; convert"):
        gaussian_rates(block, wrong, torch.eye(6))
    with pytest.raises(DataError, match=r"^The covariance of the inputs is a torch\.Tensor, got .*; convert"):
        gaussian_rates(block, torch.zeros(6), wrong)
    for no_block in (wrong, Plain(), [block]):
        with pytest.raises(ConfigError, match=r"^A block is an MLPBlock, got .*; pass one"):
            gaussian_rates(no_block, torch.zeros(6), torch.eye(6))
    whole = gaussian_rates(block, torch.zeros(6, dtype=torch.int64), torch.eye(6, dtype=torch.int64))
    assert whole.equal(gaussian_rates(block, torch.zeros(6), torch.eye(6)))


@pytest.mark.parametrize(
    ("law", "inputs", "there"),
    [
        ("gaussian", math.nan, False),
        ("empirical", math.inf, False),
        ("gaussian", 1e120, True),  # its square is a number, its fourth power is none
        ("empirical", 1e120, False),
        ("empirical", 1e60, True),
        ("gaussian", 1e200, False),
    ],
)
def test_moments_that_are_not_finite_give_no_forecast_and_a_note(law: str, inputs: float, there: bool) -> None:
    model = Plain(1, 1).double()
    set_linear(model.up, [[1.0]], [0.0])
    x = inputs * torch.tensor([[[-1.0], [-1.0], [3.0], [-1.0]]], dtype=torch.float64)
    block = measure(model, [x], blocks=[block_of(model)], forecast=law).blocks[0]
    assert block.tokens == 4 and (block.forecast is not None) == there
    if block.forecast is None:
        assert block.notes == ("No forecast: a moment of its pre-activations is not a finite number.",)
    else:
        # mean 0, so that half of a normal law fires; skewness 2 / sqrt(3) takes skewness / (6 sqrt(2 pi)) of it away
        skewness = 0.0 if law == "gaussian" else 2 / math.sqrt(3)
        assert block.forecast.density == pytest.approx(0.5 - skewness / 6 / math.sqrt(2 * math.pi))
        assert block.notes == ()


@pytest.mark.parametrize(("threshold", "rate"), [(1e70, 0.0), (-1e70, 1.0)])
def test_thresholds_far_from_what_was_seen(threshold: float, rate: float) -> None:
    """Their fifth power overflows where the normal density is 0."""
    model = Plain(1, 1, "fatrelu", (threshold,)).double()
    set_linear(model.up, [[1.0]], [0.0])
    x = torch.tensor([[[1.0], [2.0], [4.0]]], dtype=torch.float64)
    block = measure(model, [x], blocks=[block_of(model)], forecast="empirical").blocks[0]
    assert (block.forecast.density, block.density) == (rate, rate)
