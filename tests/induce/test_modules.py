"""ZerothBias, NormFloor and TokenWeightNoise, each alone."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lazyneuron.core.errors import ConfigError, ShapeError
from lazyneuron.induce import NormFloor, TokenWeightNoise, ZerothBias
from tests.induce.networks import inputs


def filled(*, position="input", per_position=True, rows: int = 9, dim: int = 6) -> ZerothBias:
    bias = ZerothBias(rows, dim, position=position, per_position=per_position).double()
    with torch.no_grad():
        bias.bias.copy_(inputs(rows=len(bias.bias), d=dim, seed=3))
    return bias


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_zeroth_bias_starts_as_the_identity():
    x = tokens(2, 5, 6).float()
    assert torch.equal(ZerothBias(9, 6)(x), x)


@pytest.mark.parametrize("per_position", [True, False])
def test_folded_is_unfolded(per_position):
    up, down = nn.Linear(6, 20).double(), nn.Linear(20, 6, bias=False).double()
    x, rows = tokens(2, 5, 6), slice(5) if per_position else slice(1)
    before, after = (filled(position=p, per_position=per_position) for p in ("input", "output"))
    torch.testing.assert_close(up(before(x)), x @ up.weight.t() + before.fold(up)[rows])
    h = torch.relu(up(x))
    torch.testing.assert_close(after(down(h)), h @ down.weight.t() + after.fold(down)[rows])
    torch.testing.assert_close(after.fold(up.__class__(2, 6).double()).shape, after.bias.shape)


def test_a_token_at_a_time_equals_all_at_once():
    bias, x = filled(), tokens(2, 5, 6)
    whole = bias(x)
    for t in range(5):
        assert torch.equal(bias(x[:, t : t + 1], torch.tensor([t])), whole[:, t : t + 1])
    padded = torch.tensor([[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]])
    assert torch.equal(bias(x, padded)[0, 3], x[0, 3] + bias.bias[1])


def test_gradient_of_the_bias():
    up, down = nn.Linear(6, 20).double(), nn.Linear(20, 6).double()
    x = tokens(1, 5, 6).requires_grad_()
    before, after = filled(), filled(position="output")
    inner = down(torch.relu(up(before(x))))
    inner.retain_grad()
    after(inner).pow(3).sum().backward()
    assert torch.equal(before.bias.grad[:5], x.grad[0])
    assert torch.equal(after.bias.grad[:5], inner.grad[0])
    assert bool((before.bias.grad[5:] == 0).all())


def test_clip_is_relative_to_each_scale():
    bias, scale = filled(), torch.tensor([0.0, 0.5, -1.0, 2.0, 4.0, 100.0])
    raw = bias.bias.detach().clone()
    moved = bias.clip_(scale)
    limit = 0.1 * scale.abs().double()
    assert torch.equal(bias.bias, raw.clamp(-limit, limit))
    assert moved == int((raw.abs() > limit).sum()) > 0
    assert bias.clip_(scale) == 0
    free = ZerothBias(2, 3, bound=None)
    nn.init.constant_(free.bias, 7.0)
    assert (free.clip_(), free.bias.max().item()) == (0, 7.0)


def test_zeroth_bias_refuses():
    with pytest.raises(ShapeError, match="knows 9 positions, got 10"):
        filled()(tokens(1, 10, 6))
    with pytest.raises(ShapeError, match="width 6"):
        filled()(tokens(1, 3, 5))
    with pytest.raises(ShapeError, match="single token"):
        filled()(tokens(6))
    for wrong in (
        (0, 6),
        (2.5, 6),
        (3, "6"),
        (3, 6, -0.1),
        (3, 6, "x"),
        (3, 6, 0.1, "middle"),
        (3, 6, 0.1, "input", 1),
    ):
        with pytest.raises(ConfigError):
            ZerothBias(*wrong)


class Gemma(nn.Module):
    """An RMS norm that stores scale - 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], eps=1e-6) * (1 + self.weight)


def test_floor_holds_after_training_and_keeps_signs():
    norm = nn.LayerNorm(6)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([-0.5, -0.0, 0.0, 0.5, -3.0, 3.0]))
        norm.bias.fill_(2.0)
    floor = NormFloor(norm).apply_()
    assert norm.weight.tolist() == [-1.0, 1.0, 1.0, 1.0, -3.0, 3.0]
    assert norm.bias.tolist() == [0.0] * 6
    assert not norm.bias.requires_grad
    optimizer = torch.optim.SGD(norm.parameters(), lr=0.5)
    for _ in range(5):
        norm(inputs(rows=40)).square().sum().backward()
        optimizer.step()
        floor.project_()
        assert norm.state_dict()["weight"].abs().min() >= 1
    assert norm.bias.tolist() == [0.0] * 6


def test_floor_bounds_the_input_of_the_block():
    norm, bias = nn.LayerNorm(6), ZerothBias(9, 6)
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        bias.bias.uniform_(-3, 3)
    floor = NormFloor(norm).apply_()
    bias.clip_(floor.scale)
    x = norm(inputs(rows=90).reshape(10, 9, 6))
    assert x.square().sum(-1).min() >= 6 * (1 - 1e-4)
    assert bias(x).square().sum(-1).min() >= 0.9**2 * 6 * (1 - 1e-4)


def test_ramp():
    norm = nn.RMSNorm(4)
    for step, wanted in ((0, 0.5), (10, 0.75), (20, 1.5), (40, 1.5)):
        nn.init.constant_(norm.weight, 0.5)
        NormFloor(norm, 1.5, bias="freeze", ramp_steps=20).project_(step)
        assert norm.weight.tolist() == [wanted] * 4
    for step in ("3", 2.5, True, math.nan, -1):
        with pytest.raises(ConfigError, match="`step` is a whole number"):
            NormFloor(norm, ramp_steps=5).project_(step)
    with pytest.raises(ConfigError, match="needs the number of steps"):
        NormFloor(norm, ramp_steps=5).project_()


def test_interrupted_ramp_is_the_same_ramp():
    def steps(norm, numbers):
        floor = NormFloor(norm, bias="freeze", ramp_steps=8)
        for step in numbers:
            with torch.no_grad():
                norm.weight.mul_(0.9)
            floor.project_(step)
        return norm

    whole, resumed = (nn.LayerNorm(4) for _ in range(2))
    steps(whole, range(12))
    fresh = nn.LayerNorm(4)
    fresh.load_state_dict(steps(resumed, range(5)).state_dict())
    assert torch.equal(steps(fresh, range(5, 12)).weight, whole.weight)


def test_floor_on_the_true_scale():
    norm = Gemma(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([-0.5, 0.5, -3.0]))
    NormFloor(norm).project_()
    assert norm.weight.tolist() == [0.0, 0.5, -3.0]


def test_bias_switches_and_refusals():
    norm = nn.LayerNorm(3)
    nn.init.constant_(norm.bias, 0.25)
    NormFloor(norm, bias="keep").apply_()
    assert norm.bias.requires_grad
    NormFloor(norm, bias="freeze").apply_()
    assert (norm.bias.tolist(), norm.bias.requires_grad) == ([0.25] * 3, False)
    for wrong in (nn.BatchNorm1d(3), nn.Linear(3, 3), nn.LayerNorm(3, elementwise_affine=False), nn.GroupNorm(3, 3)):
        with pytest.raises(ConfigError, match="no LayerNorm or RMSNorm"):
            NormFloor(wrong)
    for options in (
        {"minimum": 0.0},
        {"minimum": math.nan},
        {"minimum": "1"},
        {"minimum": True},
        {"ramp_steps": 0},
        {"ramp_steps": 2.5},
        {"bias": "lose"},
    ):
        with pytest.raises(ConfigError):
            NormFloor(norm, **options)


def test_noise_has_the_stated_law():
    torch.manual_seed(0)
    linear = nn.Linear(5, 3)
    noisy = TokenWeightNoise(linear, 0.2, generator=torch.Generator().manual_seed(1)).train()
    x = torch.tensor([[1.0, 2, 0, 0, 0], [0, 0, 3, 4, 0]])
    n = 20000
    with torch.no_grad():
        noise = noisy(x.expand(n, 2, 5)) - linear(x)
    sigma = 0.2 * math.sqrt(float(linear.weight.detach().square().sum()) / 15)
    wanted = sigma * torch.tensor([math.sqrt(5), 5.0])
    torch.testing.assert_close(noise.std(0), wanted[:, None].expand(2, 3), rtol=5 / math.sqrt(2 * n), atol=0)
    correlation = torch.corrcoef(noise.reshape(n, 6).t()) - torch.eye(6)
    assert correlation.abs().max() < 5 / math.sqrt(n)


def test_noise_is_its_own():
    linear, x = nn.Linear(5, 3), inputs(d=5)
    noisy = TokenWeightNoise(linear, generator=torch.Generator().manual_seed(1))
    twin = copy.deepcopy(noisy)
    state = torch.get_rng_state()
    first = noisy(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(twin(x), first)
    assert not torch.equal(noisy(x), first)
    assert torch.equal(noisy.eval()(x), linear(x))
    leaf = x.clone().requires_grad_()
    (ours,) = torch.autograd.grad(noisy.train()(leaf).sum(), leaf)
    torch.testing.assert_close(ours, linear.weight.sum(0).expand_as(x))
    for wrong in (-1.0, math.nan, math.inf, "a", None, True):
        with pytest.raises(ConfigError, match=r"`rho` is a .*number"):
            TokenWeightNoise(linear, wrong)
    for wrong in (None, nn.Linear, nn.Conv1d(4, 3, 1), nn.Embedding(3, 4), linear.weight):
        with pytest.raises(ConfigError, match=r"takes a torch\.nn\.Linear, got"):
            TokenWeightNoise(wrong)
