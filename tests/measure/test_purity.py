import copy

import pytest
import torch
from torch import nn

from lazyneuron.measure import measure, mlp_time_share
from tests.measure.networks import Plain, block_of


class Noisy(nn.Module):
    """Uses randomness, running statistics, a replaced buffer and hooks of its own."""

    def __init__(self):
        super().__init__()
        self.part = Plain(p=0.3)
        self.norm = nn.BatchNorm1d(6)
        self.register_buffer("last", torch.zeros(1))
        self.seen = 0
        self.part.up.register_forward_hook(self._look)

    def _look(self, *_):
        self.seen += 1

    def forward(self, x):
        self.last = x.mean().reshape(1)
        return self.part(self.norm(x) + torch.rand_like(x))


class Failing(Noisy):
    error = ValueError

    def forward(self, x):
        super().forward(x)
        raise self.error("in the middle")


def state(model):
    hooks = [
        (dict(m._forward_hooks), dict(m._forward_pre_hooks), dict(m._forward_hooks_with_kwargs), m.training)
        for m in model.modules()
    ]
    return hooks, {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state(), torch.is_grad_enabled()


def assert_same(before, after):
    assert before[0] == after[0]
    assert before[1].keys() == after[1].keys()
    for key, value in before[1].items():
        assert torch.equal(value, after[1][key]), key
    assert torch.equal(before[2], after[2])
    assert before[3] == after[3]


def watch(model):
    return [block_of(model.part, "part")]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("verb", [measure, mlp_time_share])
def test_leaves_no_trace(training, verb):
    model = Noisy().train(training)
    buffer, x = model.last, torch.randn(8, 6)
    before = state(model)
    verb(model, [x], blocks=watch(model))
    assert_same(before, state(model))
    assert model.last is buffer
    assert model.seen > 0
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("verb", [measure, mlp_time_share])
def test_leaves_no_trace_after_a_failure(error, verb):
    model = Failing().train()
    model.error, x = error, torch.randn(8, 6)
    before = state(model)
    with pytest.raises(error, match="in the middle"):
        verb(model, [x], blocks=watch(model))
    assert_same(before, state(model))


def test_batches_that_fail_half_way():
    model = Noisy()

    def batches():
        yield torch.randn(8, 6)
        raise RuntimeError("the disk is gone")

    before = state(model)
    with pytest.raises(RuntimeError, match="disk"):
        measure(model, batches(), blocks=watch(model))
    assert_same(before, state(model))


def test_a_copy_measures_the_same():
    model = Noisy().eval()
    x = torch.randn(8, 6)
    torch.manual_seed(0)
    first = measure(model, [x], blocks=watch(model)).blocks[0]
    torch.manual_seed(0)
    again = copy.deepcopy(model)
    second = measure(again, [x], blocks=watch(again)).blocks[0]
    assert torch.equal(first.firing_counts, second.firing_counts)
    assert first == second


def test_output_is_untouched_while_measuring():
    model = Plain()
    x = torch.randn(3, 6)
    expected, seen = model(x), []
    handle = model.register_forward_hook(lambda _, __, y: seen.append(y))
    measure(model, [x], blocks=[block_of(model)])
    handle.remove()
    assert torch.equal(seen[0], expected)


def test_mlp_time_share_is_a_share():
    model = Noisy().eval()
    assert 0 < mlp_time_share(model, [torch.randn(64, 6)], blocks=watch(model)) < 1


def test_mlp_time_share_counts_each_call_once():
    part = Plain(64, 256)
    share = mlp_time_share(nn.Sequential(part, nn.Identity()), [torch.randn(256, 64)], blocks=[block_of(part, "0")])
    assert 0.5 < share <= 1
