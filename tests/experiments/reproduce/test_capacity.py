"""Capacity at constant cost, small: trainings go on where they were, and the table says what was measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from lazyneuron.core.record import Record
from lazyneuron.experiments.catalogue import experiment
from lazyneuron.experiments.experiment import Request
from lazyneuron.experiments.reproduce.capacity import tasks
from lazyneuron.experiments.reproduce.capacity.experiment import mark_front
from lazyneuron.experiments.reproduce.capacity.training import Job, Kind, new_model, train_and_keep, trained
from lazyneuron.report import curves_figure


def job(folder: Path, kind: Kind = "sparse", **changes: object) -> Job:
    small = {"task": "lipschitz", "factor": 4, "hidden": 8, "steps": 20, "seed": 0}
    return Job(kind=kind, folder=folder, **{**small, **changes})  # type: ignore[arg-type]


def test_every_kind_is_compared_and_what_is_trained_is_not_trained_again(tmp_path: Path) -> None:
    one = experiment("capacity-lipschitz", "reproduce")
    request = Request(quick=True, seeds=1, folder=tmp_path)
    first = one.run(request)
    rows = {row["MLP blocks"]: row for row in first.data["rows"]}
    assert list(rows) == ["dense, 1x", "dense, 4x", "routed, Switch, 4x", "routed, LSH, 4x", "certified sparse, 4x"]
    assert [row["neurons"] for row in rows.values()] == [8, 32, 32, 32, 32]
    assert rows["routed, LSH, 4x"]["share computed"] == 0.25 and 0 < rows["dense, 4x"]["share computed"] < 1
    assert all(row["us a token, 1 at a time"] > row["us a token, 512 at a time"] > 0 for row in rows.values())
    for file in tmp_path.glob("*/found.json"):
        found = json.loads(file.read_text())
        file.write_text(json.dumps({**found, "losses": [[20, 7.0]]}))
    again = one.run(dataclasses.replace(request, advance=lambda share, note: None))
    assert {row["loss"] for row in again.data["rows"]} == {7.0}
    curves_figure(Record.from_json(first.to_json()), tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("kind", ["sparse", "switch", "lsh"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(kind: Kind, tmp_path: Path) -> None:
    whole = train_and_keep(job(tmp_path / "whole", kind), lambda share: None)

    def stop(share: float) -> None:
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_keep(job(tmp_path / "cut", kind), stop)
    resumed: list[float] = []
    cut = train_and_keep(job(tmp_path / "cut", kind), resumed.append)
    assert resumed[0] > 0.5
    assert json.loads(json.dumps(cut)) == json.loads(json.dumps(whole))
    a, b = (trained(job(tmp_path / name, kind)).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_experts_are_trained_and_the_block_they_stand_for_is_not(tmp_path: Path) -> None:
    one = job(tmp_path, "switch")
    train_and_keep(one, lambda share: None)
    before, after = new_model(one, tasks.task_of(one.task)).state_dict(), trained(one).state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert {"mlp.lazyneuron_routed.up", "mlp.lazyneuron_routed.router.weight", "head.weight"} <= moved
    assert not moved & {"mlp.0.weight", "mlp.2.weight"}


def test_the_front_by_hand() -> None:
    points = [(1.0, 5.0), (2.0, 4.0), (2.0, 4.5), (3.0, 4.0), (4.0, 1.0)]
    rows = [{"time": time, "loss": loss} for time, loss in points]
    mark_front(rows, "time", "best")
    assert [row["best"] for row in rows] == [True, True, False, False, True]


def test_no_step_sees_what_another_saw_nor_what_is_held_out() -> None:
    task = tasks.task_of("hypercube")
    seen = torch.cat([task.batch(step, seed=seed)[0] for step in range(3) for seed in range(2)] + [task.held_out[0]])
    assert len(torch.unique(seen, dim=0)) == len(seen)
    assert float(seen.square().mean()) == pytest.approx(1.0, rel=0.05)
    assert int(torch.linalg.matrix_rank(seen)) == 10
    constant = torch.nn.Linear(tasks.WIDTH, 1)
    torch.nn.init.zeros_(constant.weight)
    constant.bias.data.fill_(float(task.held_out[1].mean()))
    loss = task.loss(torch.nn.Sequential(constant, torch.nn.Flatten(0)), task.held_out)
    assert float(loss.detach()) == pytest.approx(1.0, rel=0.05)


def test_block_inputs_are_what_the_blocks_are_given() -> None:
    task = tasks.NextByte(30_000)
    model, given = task.new_model(8), []
    for block in task.blocks(model):
        block.register_forward_pre_hook(lambda module, args: given.append(args[0].flatten(0, 1)))
    with torch.no_grad():
        model(task.held_out[0])
        for got, want in zip(task.block_inputs(model), given[:2], strict=True):
            torch.testing.assert_close(got, want)
