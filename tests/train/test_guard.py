"""A loss that is not finite stops the training before the weights change, and the block is named."""

from __future__ import annotations

import pytest
import torch

import lazyneuron as lazy
from lazyneuron.core.errors import DivergedError
from lazyneuron.induce import JSReLU
from lazyneuron.train import LossGuard
from tests.train.networks import data, net


def test_finite_losses_pass():
    model, (x, _) = net(), data()
    guard = LossGuard(model)
    loss = model(x).square().mean()
    guard.check(loss, step=1)
    guard.check(3.0, step=2)


@pytest.mark.parametrize("broken", [0, 1])
def test_the_first_broken_block_is_named(broken):
    model, (x, _) = net(), data()
    guard = LossGuard(model, kept=lambda: "folder/step-7")
    with torch.no_grad():
        model.layers[broken].mlp[3].bias[0] = torch.inf
    with pytest.raises(DivergedError, match=rf"loss of step 8 is .*'layers.{broken}.mlp'.*good checkpoint is folder/s"):
        guard.check(model(x).square().mean(), step=8)


def test_an_overflow_of_half_precision_is_named():
    model, (x, _) = net().half(), data()
    for layer in model.layers:
        layer.mlp[1] = JSReLU()
    guard = LossGuard(model)
    with torch.no_grad():
        model.layers[1].mlp[0].bias[3] = 400.0  # JSReLU leaves float16 at 360
    with pytest.raises(DivergedError, match=r"first block whose output is not finite is 'layers.1.mlp'"):
        guard.check(model(x.half()).mean(), step=1)


def test_what_lies_outside_of_blocks_is_said():
    model, (x, _) = net(), data()
    guard = LossGuard(model)
    with pytest.raises(DivergedError, match="outputs of all blocks are finite"):
        guard.check(model(x).mean() * torch.nan, step=1)
    with pytest.raises(DivergedError, match=r"enters the block 'layers.0.mlp' is not finite, and no block before"):
        guard.check(model(x * torch.nan).mean(), step=1)


def test_large_numbers_in_half_precision_are_no_overflow():
    model, (x, _) = net().half(), data()
    guard = LossGuard(model)
    with torch.no_grad():
        model.layers[0].mlp[3].bias.fill_(6e4)  # each entry is finite, their sum in float16 is not
    model.layers[0](x.half())
    assert "outputs of all blocks are finite" in guard.origin()


def test_weights_stay_those_of_the_last_good_step():
    model, (x, y) = net(), data()
    lazy.sparsify_(model, lazy.DoublyBiased())
    guard, optimizer = LossGuard(model), torch.optim.SGD(model.parameters(), lr=0.05)
    kept = []
    with pytest.raises(DivergedError, match="step 4"):
        for step in range(1, 10):
            kept = [p.detach().clone() for p in model.parameters()]
            loss = (model(x) - (y if step < 4 else y * torch.inf)).square().mean()
            guard.check(loss, step=step)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            lazy.project_(model)
    assert step == 4 and all(map(torch.equal, kept, (p.detach() for p in model.parameters())))


def test_removed_hooks_are_gone():
    model = net()
    LossGuard(model).remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
