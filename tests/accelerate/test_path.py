"""A path is one object, whatever becomes of the model that holds it."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch

import lazyneuron as lazy
from lazyneuron.accelerate.path import DENSE, GATHER, PATHS, Path, path_named
from lazyneuron.accelerate.status import executions
from tests.accelerate.test_transform import mlp, run


@pytest.mark.parametrize("path", PATHS.values())
def test_a_copy_of_a_path_is_itself(path: Path) -> None:
    assert path_named(path.name) is path and str(path) == path.name
    assert copy.deepcopy({path: [path]}) == {path: [path]}
    assert copy.copy(path) is copy.deepcopy(path) is pickle.loads(pickle.dumps(path)) is path
    with pytest.raises(dataclasses.FrozenInstanceError):
        path.name = "other"  # type: ignore[misc]


def test_names_are_those_of_saved_receipts_and_cost_models() -> None:
    assert {path.name: path.planes for path in PATHS.values()} == {
        "dense": 0,
        "certified-2": 2,
        "certified-1": 1,
        "gather": 0,
        "triton": 0,
    }
    with pytest.raises(KeyError):
        path_named("certified-9")


def test_a_copied_model_takes_the_paths_of_the_original() -> None:
    model, x = mlp(), torch.randn(3, 24)
    lazy.accelerate_(model, impl="gather")
    (execution,) = executions(model)
    execution.following.table = (GATHER, GATHER, DENSE) + (GATHER,) * 10
    execution.current.state = execution.with_runs(execution.current.now())
    twin = copy.deepcopy(model)
    assert torch.equal(run(twin, x), run(model, x)) and torch.equal(run(twin, x[:1]), run(model, x[:1]))
    for one in (model, twin):
        assert lazy.status(one).blocks[0].paths == {"dense": 1, "gather": 1}
