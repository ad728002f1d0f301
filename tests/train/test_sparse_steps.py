"""Training by what fires alone against torch's own: losses and gradients are the same to rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.induce import JSReLU
from lazyneuron.train import LossGuard, SparsityMonitor, TrainingHooks, pack_activations_
from lazyneuron.train.packing import costs
from lazyneuron.train.packing.costs import BlockShape, StepCosts
from lazyneuron.train.packing.overrides import tally_of
from tests.accelerate.comparison import check_close
from tests.kernels import needs_kernels
from tests.train.packing import kept_bytes, step, train

WIDTH, HIDDEN = 32, 84


class Gated(nn.Module):
    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(WIDTH, HIDDEN, bias=bias), nn.Linear(WIDTH, HIDDEN, bias=bias)
        self.act, self.down = nn.ReLU(), nn.Linear(HIDDEN, WIDTH, bias=bias)

    def forward(self, x):
        return self.down(self.act(self.gate(x)) * self.up(x))


class Squared(nn.Module):
    def forward(self, z):
        return z.relu().square()


def plain(activation: nn.Module, *between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN), activation, *between, nn.Linear(HIDDEN, WIDTH))


BLOCKS = {
    "relu": lambda: plain(nn.ReLU()),
    "squared": lambda: plain(Squared()),
    "jsrelu": lambda: plain(JSReLU(mix=0.5, cap=2.0)),
    "gated": Gated,
    "gated without biases": lambda: Gated(bias=False),
}


def tokens(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def tally(model: nn.Module):
    (block,) = lazy.find_blocks(model)
    return tally_of(block)


def close(got, wanted, *, length=300):
    check_close(got[0], wanted[0], length=length)
    for one, other in zip(got[1], wanted[1], strict=True):
        check_close(one, other, length=length)


@needs_kernels
@pytest.mark.parametrize("shape", [(3, 5), (40,), (1,), (0,)])
@pytest.mark.parametrize("name", BLOCKS)
def test_the_gradients_are_the_dense_ones(name, shape):
    torch.manual_seed(0)
    model, x = BLOCKS[name](), tokens(*shape)
    wanted = step(model, x)
    receipt = pack_activations_(model, arithmetic="sparse")
    assert receipt.changes[0].details["arithmetic"] == "sparse"
    close(step(model, x), wanted)
    close(step(copy.deepcopy(model), x), wanted)
    assert tally(model).sparse_calls == 1 and tally(model).dense_calls == 0
    lazy.restore_(model, receipt)
    assert all(map(torch.equal, step(model, x)[1], wanted[1]))


@needs_kernels
def test_the_backward_touches_only_what_fires(monkeypatch):
    """With a weight that is not finite where nothing fires, a dense product would give NaN."""
    model, x = plain(nn.ReLU()), tokens(6)
    with torch.no_grad():
        model[0].bias[5] = -1e9
        model[2].weight[:, 5] = torch.nan
    pack_activations_(model, arithmetic="sparse")
    y, (to_x, *others) = step(model, x)
    assert y.isfinite().all() and to_x.isfinite().all() and all(g.isfinite().all() for g in others)
    assert others[0][5].abs().max() == 0 and others[2][:, 5].abs().max() == 0


@needs_kernels
def test_nothing_and_everything_fires():
    for bias in (-1e6, 1e6):
        model, x = plain(nn.ReLU()), tokens(9)
        nn.init.constant_(model[0].bias, bias)
        wanted = step(model, x)
        pack_activations_(model, arithmetic="sparse")
        close(step(model, x), wanted, length=3000)


@needs_kernels
def test_whoever_looks_at_the_gradient_of_the_activation_gets_all_of_it():
    def watch(h, seen):
        h.register_hook(lambda g: seen.append(g.clone()))

    def look(model, how):
        seen = []
        if how == "hook before down":
            model[2].register_forward_pre_hook(lambda m, a: watch(a[0], seen))
        elif how == "hook after the activation":
            model[1].register_forward_hook(lambda m, a, h: watch(h, seen))
        else:
            model[2].register_full_backward_hook(lambda m, to, of: seen.append(to[0].clone()))
        return seen

    for how in ("hook before down", "hook after the activation", "backward hook"):
        model, other = plain(nn.ReLU()), plain(nn.ReLU())
        pack_activations_(model, arithmetic="sparse")
        seen, wanted = look(model, how), look(other, how)
        step(model, tokens(5)), step(other, tokens(5))
        check_close(seen[0], wanted[0], length=200)
        assert tally(model).sparse_calls == 0


@needs_kernels
def test_other_gradients_of_the_pre_activation_are_added():
    """As those of a penalty, which differ from zero where nothing fires."""

    def run(model):
        caught = []
        handle = model[0].register_forward_hook(lambda m, a, z: caught.append(z))
        x = tokens(7).requires_grad_()
        (model(x).square().sum() + caught[0].square().sum()).backward()
        handle.remove()
        return x.grad, [p.grad.clone() for p in model.parameters()]

    model, other = plain(nn.ReLU()), plain(nn.ReLU())
    pack_activations_(model, arithmetic="sparse")
    close(run(model), run(other))
    assert tally(model).sparse_calls == 1


@needs_kernels
def test_where_it_is_not_possible_the_step_is_dense():
    model, x = plain(nn.ReLU(), nn.Dropout(0.3)).train(), tokens(5)
    wanted = step(model, x)
    pack_activations_(model, arithmetic="sparse")
    close(step(model, x), wanted)
    assert (tally(model).sparse_calls, tally(model).dense_calls) == (0, 1)
    model = plain(nn.ReLU())
    pack_activations_(model, arithmetic="sparse")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x).sum().backward()
    assert (tally(model).sparse_calls, tally(model).dense_calls) == (0, 1)
    odd = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 20))
    (change,) = pack_activations_(odd, arithmetic="sparse").changes
    assert change.details["arithmetic"] == "dense" and "16 divides" in change.details["why_dense"]


@needs_kernels
def test_memory_is_that_of_packed_activations():
    model, x = plain(nn.ReLU()), tokens(50)
    pack_activations_(model)
    dense = kept_bytes(model, x)
    other = plain(nn.ReLU())
    pack_activations_(other, arithmetic="sparse")
    assert kept_bytes(other, x) == dense


@needs_kernels
def test_auto_takes_what_is_measured_to_be_faster(monkeypatch):
    asked = []

    def known(shape, tokens):
        asked.append((shape, tokens))
        return StepCosts(tokens=100, dense_us=100.0, fixed_us=40.0, pair_us=0.05)

    monkeypatch.setattr("lazyneuron.train.packing.steps.costs_for", known)
    for bias, sparse in ((-1e6, 1), (1e6, 0)):  # nothing fires, and everything
        model = plain(nn.ReLU())
        nn.init.constant_(model[0].bias, bias)
        pack_activations_(model, arithmetic="auto")
        model(tokens(100)).sum().backward()
        assert (tally(model).sparse_calls, tally(model).dense_calls) == (sparse, 1 - sparse)
    assert asked[0] == (BlockShape(d_in=WIDTH, d_hidden=HIDDEN, d_out=WIDTH, firsts=1), 100)


def test_the_decision_by_hand():
    model = StepCosts(tokens=100, dense_us=100.0, fixed_us=10.0, pair_us=0.05)
    assert model.is_sparse_faster(100, 1500) and not model.is_sparse_faster(100, 1700)  # 85 and 95 against 90
    assert model.is_sparse_faster(200, 3000) and not model.is_sparse_faster(200, 3300)  # 170 and 185 against 180
    assert not model.is_sparse_faster(10, 0)  # what does not shrink with the tokens: 10 against 9


@needs_kernels
def test_costs_are_measured_once_for_a_shape():
    shape = BlockShape(d_in=32, d_hidden=64, d_out=32)
    first = costs.costs_for(shape, 60)
    assert costs.costs_for(shape, 50) is first and first.tokens == 64
    assert first.dense_us > 0 and first.fixed_us >= 0 and first.pair_us >= 0


@needs_kernels
def test_a_training_has_the_same_losses():
    batches = [(x, x.sin()) for x in (tokens(30, seed=number) for number in range(1, 7))]
    losses = []
    for packs in (False, "sparse"):
        model = plain(nn.ReLU())
        hooks = TrainingHooks(model, every=3, pack=packs)
        losses.append(train(model, hooks, batches))
        if packs:  # steps that the monitor looks at are dense, the others are not
            assert (tally(model).sparse_calls, tally(model).dense_calls) == (4, 2)
        hooks.stop()
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and losses[1][5] < losses[1][0]


@needs_kernels
def test_guard_and_output_hooks_do_not_stand_in_the_way():
    model = plain(nn.ReLU())
    pack_activations_(model, arithmetic="sparse")
    guard, _ = LossGuard(model), SparsityMonitor(model, every=100)
    loss = model(tokens(5)).sum()
    guard.check(loss, step=1)
    assert tally(model).sparse_calls == 1


def test_what_is_not_known_or_not_here_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="arithmetic is one of dense, auto, sparse, got 'fast'"):
        pack_activations_(plain(nn.ReLU()), arithmetic="fast")
    monkeypatch.setenv("LAZYNEURON_NATIVE", "off")
    with pytest.raises(ImplUnavailable, match="switched off"):
        pack_activations_(plain(nn.ReLU()), arithmetic="sparse")
    (change,) = pack_activations_(plain(nn.ReLU()), arithmetic="auto").changes
    assert "switched off" in change.details["why_dense"]
