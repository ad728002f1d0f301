"""Trainings that are killed go on bit for bit; what does not fit is refused before anything changes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import lazyneuron as lazy
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.induce import DensityController, TargetDensity, TokenWeightNoise
from lazyneuron.train import BatchOrder, Checkpoints
from lazyneuron.train.tree import read_tree, write_tree
from tests.house.rooms import ROOT
from tests.train.networks import data, net

STEPS = 40


def training(folder, *, steps=STEPS, kill_after=None, pause=0.0):
    """Run the training in a process of its own; its lines, until it ends or is killed."""
    command = [sys.executable, "-m", "tests.train.long_training", str(folder), str(steps), str(pause)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        for line in process.stdout:
            lines.append(line.split())
            if lines[-1] == [str(kill_after)]:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == (0 if kill_after is None else -signal.SIGKILL)
    return lines


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    whole = training(tmp_path / "whole")
    training(tmp_path / "killed", kill_after=17, pause=0.01)
    last = training(tmp_path / "killed")
    assert whole[0] == ["from", "0"] and last[0] in (["from", "15"], ["from", "18"])  # the kill takes a moment
    assert whole[-1][0] == "weights" and last[-1] == whole[-1]


def parts(seed=0, *, recipe=None):
    model = net(seed=seed)
    lazy.sparsify_(model, lazy.DoublyBiased.for_finetuning(10) if recipe is None else recipe)
    return model, torch.optim.AdamW(model.parameters(), 1e-2)


def step_(model, optimizer):
    x, y = data()
    (model(x) - y).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_everything_that_is_random_comes_back(tmp_path):
    model, optimizer = parts()
    model.head = TokenWeightNoise(model.head, generator=torch.Generator().manual_seed(3))
    dice = torch.Generator().manual_seed(4)
    checkpoints = Checkpoints(tmp_path, model, optimizer=optimizer, dice=dice)
    step_(model, optimizer)
    checkpoints.save(1)

    def draws():
        drawn = [torch.rand(2), torch.rand(2, generator=dice), model(data()[0]).detach()]
        return [*drawn, torch.tensor([random.random(), np.random.rand(), np.random.randn()])]

    first = draws()
    assert not all(map(torch.equal, first, draws()))
    assert checkpoints.resume_() == 1
    assert all(map(torch.equal, first, draws()))


def test_a_controller_goes_on(tmp_path):
    model, optimizer = parts()
    target = TargetDensity(density=0.1)
    one, other = DensityController(target), DensityController(target)
    for k in range(4):
        one.update(0.5 - k / 30, progress=k / 8)
    Checkpoints(tmp_path, model, optimizer=optimizer, controller=one).save(4)
    Checkpoints(tmp_path, model, optimizer=optimizer, controller=other).resume_()
    for k in range(4, 8):
        assert one.update(0.3, progress=k / 8) == other.update(0.3, progress=k / 8)


def test_the_newest_whole_checkpoint_counts(tmp_path):
    model, optimizer = parts()
    checkpoints = Checkpoints(tmp_path, model, optimizer=optimizer, keep=2)
    assert checkpoints.resume_() == 0 and checkpoints.last is None
    for step in (1, 2, 10):
        checkpoints.save(step)
    (tmp_path / "step-0000000011.part").mkdir()  # what a kill while writing leaves
    assert checkpoints.steps() == [2, 10] and checkpoints.last.endswith("step-0000000010")
    assert checkpoints.resume_() == 10
    checkpoints.save(11)
    assert checkpoints.steps() == [10, 11] and sorted(os.listdir(tmp_path)) == [
        "step-0000000010",
        "step-0000000011",
    ]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: parts(recipe=lazy.DoublyBiased(zeroth_bias=False)), "does not fit this model"),
        (lambda: parts(recipe=lazy.DoublyBiased.for_finetuning(11)), "other settings of the recipe"),
        (lambda: parts(recipe=lazy.DoublyBiased(bound=0.2, norm_bias="freeze")), "other settings of the recipe"),
    ],
)
def test_another_recipe_is_refused_before_anything_changes(tmp_path, other, message):
    model, optimizer = parts()
    Checkpoints(tmp_path, model, optimizer=optimizer).save(3)
    model, optimizer = other()
    before = [v.clone() for v in model.state_dict().values()]
    with pytest.raises(CheckpointError, match=message):
        Checkpoints(tmp_path, model, optimizer=optimizer).resume_()
    assert all(map(torch.equal, before, model.state_dict().values()))


def test_other_parts_are_refused(tmp_path):
    model, optimizer = parts()
    order = BatchOrder(10, batch_size=2, seed=0)
    Checkpoints(tmp_path, model, optimizer=optimizer, order=order).save(3)
    with pytest.raises(CheckpointError, match=r"holds the parts \['optimizer', 'order'\], but \['optimizer'\]"):
        Checkpoints(tmp_path, model, optimizer=optimizer).resume_()
    with pytest.raises(CheckpointError, match="seed = 0, this one 1"):
        Checkpoints(tmp_path, model, optimizer=optimizer, order=BatchOrder(10, batch_size=2, seed=1)).resume_()
    other = torch.optim.AdamW(model.parameters(), lr=0.5)
    with pytest.raises(CheckpointError, match="seed = 0, this one 1"):
        Checkpoints(tmp_path, model, optimizer=other, order=BatchOrder(10, batch_size=2, seed=1)).resume_()
    assert other.param_groups[0]["lr"] == 0.5
    few = torch.optim.AdamW(list(model.parameters())[:2])
    with pytest.raises(CheckpointError, match="does not fit the optimiser 'optimizer'"):
        Checkpoints(tmp_path, model, optimizer=few, order=order).resume_()
    with pytest.raises(ConfigError, match="without state_dict"):
        Checkpoints(tmp_path, model, order=3)
    with pytest.raises(ConfigError, match="keep=0"):
        Checkpoints(tmp_path, model, keep=0)


@pytest.mark.parametrize("name", ["shared-*.safetensors", "rank-0-*.safetensors", "checkpoint.json"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, name):
    model, optimizer = parts()
    checkpoints = Checkpoints(tmp_path, model, optimizer=optimizer)
    (file,) = checkpoints.save(3).glob(name)
    file.write_bytes(file.read_bytes()[:20])
    before = [v.clone() for v in model.state_dict().values()]
    with pytest.raises(CheckpointError, match="does not hold a training state"):
        checkpoints.resume_()
    assert all(map(torch.equal, before, model.state_dict().values()))


def test_trees_come_back_exactly(tmp_path):
    tree = {
        0: [1, (2.5, None, True)],
        "f": [float("inf"), 0.1, -0.0, 1e-320],
        "bf16": torch.randn(3, 2).bfloat16().t(),
        "empty": torch.zeros(0, 3),
        "array": np.arange(6).reshape(2, 3)[:, ::2],
        (1, "key"): {},
    }
    write_tree(tree, tmp_path, "x")
    back = read_tree(tmp_path, "x")
    assert list(back) == list(tree) and back[0] == tree[0] and back["f"] == tree["f"] and back[(1, "key")] == {}
    assert str(back["f"][2]) == "-0.0"
    assert torch.equal(back["bf16"], tree["bf16"]) and back["empty"].shape == (0, 3)
    assert np.array_equal(back["array"], tree["array"])
    with pytest.raises(CheckpointError, match=r"the state\['bad'\]\[0\] is a object, which cannot be saved"):
        write_tree({"bad": [object()]}, tmp_path, "y")


def test_orders_are_permutations_and_split_over_processes():
    order = BatchOrder(12, batch_size=4, seed=3)
    first, second = ([next(order) for _ in range(3)] for _ in range(2))
    assert sorted(torch.cat(first).tolist()) == sorted(torch.cat(second).tolist()) == list(range(12))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    ranks = [BatchOrder(12, batch_size=4, seed=3, rank=r, processes=2) for r in range(2)]
    assert torch.equal(torch.cat([next(r) for r in ranks]), first[0])
    with pytest.raises(ConfigError, match="split evenly"):
        BatchOrder(13, batch_size=4, seed=3, processes=2)
    with pytest.raises(ConfigError, match="at least 1"):
        BatchOrder(0, batch_size=4, seed=3)
