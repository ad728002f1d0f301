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
from lazyneuron.core.errors import CheckpointError, ConfigError, DataError
from lazyneuron.core.sealed import read_sealed, write_sealed
from lazyneuron.induce import DensityController, TargetDensity, TokenWeightNoise
from lazyneuron.train import BatchOrder, Checkpoints
from lazyneuron.train.steps import DOCUMENT
from lazyneuron.train.tree import encode, read_tree, write_tree
from tests.core.resealed import reseal
from tests.house.rooms import ROOT
from tests.train import long_training
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


def test_a_killed_training_ends_with_the_same_weights(tmp_path, capsys):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the others have
    try:
        long_training.main(str(tmp_path / "whole"), STEPS, 0.0)
    finally:
        torch.set_num_threads(threads)
    whole = [line.split() for line in capsys.readouterr().out.splitlines()]
    training(tmp_path / "killed", kill_after=17, pause=0.01)
    last = training(tmp_path / "killed")
    assert (
        whole[0] == ["from", "0"] and last[0][0] == "from" and 15 <= int(last[0][1]) < STEPS
    )  # the kill takes a moment
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
    generator = torch.Generator().manual_seed(4)
    checkpoints = Checkpoints(tmp_path, model, optimizer=optimizer, generator=generator)
    step_(model, optimizer)
    checkpoints.save(1)

    def draws():
        drawn = [torch.rand(2), torch.rand(2, generator=generator), model(data()[0]).detach()]
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


def small(folder, *, keep=2):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    return Checkpoints(folder, model, keep=keep, optimizer=torch.optim.AdamW(model.parameters()))


def test_a_damaged_newest_checkpoint_gives_way_to_an_older_one_with_a_word(tmp_path):
    checkpoints = small(tmp_path)
    checkpoints.save(1)
    checkpoints.save(2)
    (file,) = checkpoints.path(2).glob("shared-*")
    file.unlink()  # as a removal that was cut short leaves it
    with pytest.warns(UserWarning, match=r"goes on from .*step-0000000001, since: .*step-0000000002 does not hold"):
        assert checkpoints.resume_() == 1
    once = small(tmp_path, keep=1)
    once.save(3)
    assert once.steps() == [3]
    (file,) = checkpoints.path(3).glob("shared-*")
    file.unlink()
    once.save(2)  # the newest is damaged, so the one just written has to stay
    assert once.steps() == [2, 3]
    with pytest.warns(UserWarning, match="goes on from"):
        assert once.resume_() == 2


def test_what_is_left_of_a_checkpoint_is_not_passed_over_in_silence(tmp_path):
    checkpoints = small(tmp_path)
    (checkpoints.save(1) / "checkpoint.json").unlink()
    with pytest.warns(UserWarning, match="only what an interrupted saving left"):
        assert checkpoints.resume_() == 0
    checkpoints.save(5)
    assert os.listdir(tmp_path) == ["step-0000000005"]
    earlier = tmp_path / "earlier" / "step-0000000003"
    earlier.mkdir(parents=True)
    (earlier / "shared.json").write_text("{}")
    with pytest.raises(CheckpointError, match="those of an earlier version"):
        small(tmp_path / "earlier").resume_()
    small(tmp_path / "earlier").save(4)
    assert earlier.is_dir()  # not ours to remove


class Picky:
    """A part that takes no state from a checkpoint after it has begun to."""

    def __init__(self):
        self.count = 7

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        torch.rand(1)  # loading may draw random numbers
        self.count = state["count"]
        if state["count"] == 3:
            raise RuntimeError("not that one")


def everything(model, optimizer, generator):
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.state_dict().values(), *moments, generator.get_state(), torch.get_rng_state()]


@pytest.mark.parametrize("damage", ["part", "random", "generator", "optimizer"])
def test_resuming_is_all_or_nothing(tmp_path, damage):
    model, optimizer = parts()
    picky, generator = Picky(), torch.Generator().manual_seed(4)
    checkpoints = Checkpoints(tmp_path, model, optimizer=optimizer, picky=picky, generator=generator)
    step_(model, optimizer)
    picky.count = 3 if damage == "part" else 2
    document = checkpoints.save(1) / "checkpoint.json"

    def change(content):
        rank = dict(content["rank-0"]["dict"])
        if damage == "random":
            dict(rank["random"]["dict"])["python"]["tuple"][1]["tuple"].pop()
        if damage == "generator":
            rank["generators"]["dict"][0][1] = {"list": [1]}
        if damage == "optimizer":
            dict(dict(content["shared"]["dict"])["optimizers"]["dict"])["optimizer"]["dict"].pop()

    reseal(document, change)
    step_(model, optimizer)
    picky.count = 7
    kept = [
        *model.state_dict().values(),
        *(t for s in optimizer.state.values() for t in s.values()),
        generator.get_state(),
    ]
    before = [value.clone() for value in (*kept, torch.get_rng_state())]
    with pytest.raises(CheckpointError, match=r"damaged|does not fit the optimiser"):
        checkpoints.resume_()
    now = [
        *model.state_dict().values(),
        *(t for s in optimizer.state.values() for t in s.values()),
        generator.get_state(),
    ]
    assert all(map(torch.equal, before, (*now, torch.get_rng_state()))) and picky.count == 7
    step_(model, optimizer)


@pytest.mark.parametrize("step", [-1, 10**10, 3.0, "3", None])
def test_a_step_that_no_folder_could_be_named_for_is_refused(tmp_path, step):
    with pytest.raises(ConfigError, match="A step is a whole number from 0 to 9999999999"):
        Checkpoints(tmp_path / "new", net()).save(step)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_not_filled_with_halves_of_checkpoints(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, net(), keep=1)
    checkpoints.save(1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lazyneuron.core.sealed.seal", full)
    with pytest.raises(DataError, match="No space left on device"):
        checkpoints.save(2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001"]
    assert checkpoints.resume_() == 1


def test_a_checkpoint_that_is_let_go_stops_counting_before_its_files_go(tmp_path, monkeypatch):
    monkeypatch.setattr("lazyneuron.train.steps.shutil.rmtree", lambda *_, **__: None)  # as if killed there
    checkpoints = Checkpoints(tmp_path, net(), keep=1)
    checkpoints.save(1)
    checkpoints.save(2)
    assert checkpoints.steps() == [2]


def two_processes(folder, *, alike):
    """What an earlier version wrote for two processes: tensors whole in one file, and a file of each one's own."""
    checkpoints, numbers = small(folder), torch.Generator().manual_seed(5)
    checkpoints.parts["numbers"] = numbers
    path = checkpoints.save(3)
    content, tensors = read_sealed(path, DOCUMENT, what="training state")
    if not alike:
        numbers.manual_seed(6)
        torch.manual_seed(7)
    content["rank-1"], tensors["rank-1"] = encode(checkpoints._own())
    write_sealed(path, DOCUMENT, content, tensors)
    return checkpoints, numbers


@pytest.mark.parametrize("alike", [True, False])
def test_one_process_resumes_what_two_saved(tmp_path, alike):
    checkpoints, numbers = two_processes(tmp_path, alike=alike)
    wanted = [value.clone() for value in checkpoints.model.state_dict().values()]
    first = torch.Generator().manual_seed(5).get_state(), torch.get_rng_state() if alike else None
    found = []
    for _ in range(2):
        checkpoints.model.weight.data.zero_()
        assert checkpoints.resume_() == 3
        assert all(map(torch.equal, wanted, checkpoints.model.state_dict().values()))
        found.append((numbers.get_state(), torch.get_rng_state()))
    assert all(map(torch.equal, *found))  # derived, not drawn
    assert torch.equal(found[0][0], first[0]) == alike
    if alike:
        assert torch.equal(found[0][1], first[1])
    else:
        assert numbers.initial_seed() not in (5, 6) and torch.initial_seed() != 7
