"""The hooks in a loop of one's own: what the steps by hand give, bit for bit, and a resume in the middle."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.core.errors import ConfigError, DivergedError, NoBlocksError
from lazyneuron.induce import DensityController, Pressure, TargetDensity, TokenWeightNoise, pre_activations
from lazyneuron.induce.training.pressure import total_pressure
from lazyneuron.train import BatchOrder, Checkpoints, TrainingHooks
from tests.train.networks import data, net

PRESSURE = Pressure(target=TargetDensity(density=0.2, strength=0.1))
STEPS = 10


def changed() -> nn.Module:
    model = net()
    lazy.sparsify_(model, lazy.DoublyBiased.for_finetuning(8))
    model.head = TokenWeightNoise(model.head, generator=torch.Generator().manual_seed(3))
    return model


def hooks_on(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def by_hand() -> dict:
    """The same training without hooks."""
    model, (x, y) = changed(), data()
    blocks, controller = lazy.find_blocks(model), DensityController(PRESSURE.target)
    optimizer, order = torch.optim.AdamW(model.parameters(), 1e-2), BatchOrder(len(x), batch_size=16, seed=0)
    lazy.project_(model, step=0)
    for step in range(1, STEPS + 1):
        rows = next(order)
        with pre_activations(blocks) as caught:
            loss = (model(x[rows]) - y[rows]).square().mean()
        penalty, density = total_pressure(PRESSURE, blocks, caught=caught, mask=None)
        (loss + controller.update(density, progress=step / STEPS) * penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
        lazy.project_(model, step=step)
    return model.state_dict()


def hooked(folder, *, steps: int = STEPS) -> tuple[nn.Module, TrainingHooks]:
    model, (x, y) = changed(), data()
    optimizer, order = torch.optim.AdamW(model.parameters(), 1e-2), BatchOrder(len(x), batch_size=16, seed=0)
    checkpoints = Checkpoints(folder, model, optimizer=optimizer, order=order)
    hooks = TrainingHooks(model, every=4, pressure=PRESSURE, checkpoints=checkpoints, save_every=3)
    for step in range(hooks.resume_() + 1, steps + 1):
        rows = next(order)
        hooks.begin_step(step)
        loss = (model(x[rows]) - y[rows]).square().mean() + hooks.penalty(progress=step / STEPS)
        hooks.check(loss, step=step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        hooks.end_step(step)
    hooks.stop()
    return model, hooks


def test_they_do_what_the_steps_by_hand_do_and_resume(tmp_path):
    wanted = by_hand()
    model, hooks = hooked(tmp_path / "whole")
    assert all(torch.equal(wanted[k], v) for k, v in model.state_dict().items())
    assert [r.step for r in hooks.monitor.readings] == [4, 8] and hooks.checkpoints.steps() == [6, 9]
    assert hooks_on(model) == hooks_on(changed())
    hooked(tmp_path / "parts", steps=5)
    model, hooks = hooked(tmp_path / "parts")
    assert all(torch.equal(wanted[k], v) for k, v in model.state_dict().items())
    assert [r.step for r in hooks.monitor.readings] == [4, 8]  # the first part saved after step 3


def test_a_bad_loss_takes_them_off(tmp_path):
    model = net()
    hooks = TrainingHooks(model, every=1)
    hooks.start()
    hooks.begin_step(1)
    model(data()[0])
    with pytest.raises(DivergedError, match="loss of step 1 is nan"):
        hooks.check(float("nan"), step=1)
    assert hooks_on(model) == 0


def test_their_state_is_that_of_generators_and_controller():
    model, other = changed(), changed()
    one, two = (TrainingHooks(m, every=0, pressure=PRESSURE) for m in (model, other))
    one.controller.update(0.5, progress=0.1)
    model(data()[0])
    assert not torch.equal(model.head.generator.get_state(), other.head.generator.get_state())
    two.load_state_dict(one.state_dict())
    assert torch.equal(model.head.generator.get_state(), other.head.generator.get_state())
    assert two.controller.state_dict() == one.controller.state_dict()
    model(data()[0])
    two.load_state_dict({"head": model.head.generator.get_state()})  # as earlier versions wrote it
    assert torch.equal(model.head.generator.get_state(), other.head.generator.get_state())


def test_blocks_can_be_given_and_bad_settings_are_refused(tmp_path):
    model = net()
    assert TrainingHooks(model, blocks=lazy.find_blocks(model)[:1]).monitor.blocks[0].name == "layers.0.mlp"
    with pytest.raises(NoBlocksError):
        TrainingHooks(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="needs checkpoints, got 3"):
        TrainingHooks(model, save_every=3)
    with pytest.raises(ConfigError, match="make the hooks with a pressure"):
        TrainingHooks(model).penalty(progress=0.0)
    with pytest.raises(ConfigError, match="make the hooks with checkpoints"):
        TrainingHooks(model).resume_()
    kept = Checkpoints(tmp_path, model, controller=DensityController(PRESSURE.target))
    with pytest.raises(ConfigError, match="'controller' of the checkpoints"):
        TrainingHooks(model, pressure=PRESSURE, checkpoints=kept)
