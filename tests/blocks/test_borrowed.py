"""A borrowed model is given back as it was; each option gives back what it names, also after an exception."""

import warnings

import pytest
import torch
from torch import nn

from lazyneuron.blocks.borrowed import RandomState, borrowed


class Restless(nn.Module):
    """Draws random numbers, and writes buffers, an attribute and the count of its calls."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("last", torch.zeros(1))
        self.register_buffer("count", torch.zeros(1))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.count += 1
        self.last = x.mean().reshape(1)
        return self.drop(self.norm(x)) + torch.rand_like(x)


def facts(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        {name: module.training for name, module in model.named_modules()},
        {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()},
        torch.get_rng_state(),
        torch.is_grad_enabled(),
    )


def assert_alike(one, other):
    for a, b in zip(one[0].items(), other[0].items(), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1]), a[0]
    assert one[1:3] == other[1:3]
    assert torch.equal(one[3], other[3])
    assert one[4] == other[4]


def use(model, options, error):
    with borrowed(model, **options):
        model(torch.randn(3, 4))
        if error is not None:
            raise error


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{"observe": True}, {"observe": True, "evaluate": True}, {"bare": True}])
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_forwards_leave_no_trace(training, options, error):
    model = Restless().train(training)
    model.drop.eval()
    buffer, before = model.last, facts(model)
    if error is None:
        use(model, options, error)
    else:
        with pytest.raises(error):
            use(model, options, error)
    assert_alike(before, facts(model))
    assert model.last is buffer


def test_bare_runs_the_models_own_code_only():
    model, called = Restless(), []
    model.register_forward_hook(lambda *_: called.append(1))
    with borrowed(model, bare=True), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model(torch.randn(3, 4))
        assert not model.drop.training
        assert not torch.is_grad_enabled()
    assert not called
    assert not said
    assert model.calls == 0
    model(torch.randn(3, 4))
    assert called == [1]


def test_only_the_trained_parameters_gather_gradients():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    before = {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    with borrowed(model, trained=[model[1].weight]):
        assert all(p.grad is None for p in model.parameters())
        model(torch.ones(1, 2)).sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is not None] == ["1.weight"]
    assert {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()} == before


def test_weights_come_back_on_failure_and_stay_otherwise():
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), borrowed(model, weights=True):
        model.weight.data.add_(1)
        model.weight.grad = torch.ones(2, 2)
        raise KeyboardInterrupt
    assert torch.equal(model.weight, before)
    assert model.weight.grad is None
    with borrowed(model, weights=True):
        model.weight.data.add_(1)
    assert torch.equal(model.weight, before + 1)


def test_random_numbers_come_again():
    state = RandomState(nn.Linear(1, 1))
    first = torch.rand(3)
    state.put_back()
    assert torch.equal(torch.rand(3), first)
