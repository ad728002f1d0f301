import pytest
import torch
from torch import nn

from lazyneuron.accelerate.machine import costs
from lazyneuron.accelerate.machine.cost_model import CostModel
from lazyneuron.accelerate.path import GATHER
from lazyneuron.accelerate.policy import predict
from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.measure import measure

D, HIDDEN = 16, 64


@pytest.fixture
def machine(monkeypatch):
    """A machine on which a dense step takes 100 us and a sparse one 10 us and 100 us for all rows."""
    model = CostModel(
        dtype="float32",
        fingerprint="a machine",
        shapes=((D, HIDDEN),),
        tokens=(1, 256),
        dense_us=((100.0, 100.0),),
        lines={GATHER: (((10.0, 100.0), (10.0, 100.0)),)},
        computed=((0.1, 0.2), (0.5, 0.6)),
    )
    monkeypatch.setattr(costs, "are_known", lambda dtype: dtype == torch.float32)
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype: model)
    monkeypatch.setattr(predict, "sparse_paths", lambda: (GATHER,))


def block(activation):
    (found,) = find_blocks(nn.Sequential(nn.Linear(D, HIDDEN), activation, nn.Linear(HIDDEN, D)))
    return found


def test_sparse_time_follows_the_computed_and_the_firing_share(machine):
    step = predict.MachineCost()(block(nn.ReLU()), tokens=1, density=0.1, union_density=0.1)
    assert (step.path, step.dense_us) == ("gather", pytest.approx(100))
    assert step.best_us == pytest.approx(10 + 100 * (0.2 + 0.1))


def test_dense_wins_when_most_fires(machine):
    step = predict.MachineCost()(block(nn.ReLU()), tokens=1, density=0.5, union_density=0.5)
    assert (step.path, step.best_us) == ("dense", pytest.approx(100))


def test_a_function_that_is_zero_nowhere_runs_densely(machine):
    step = predict.MachineCost()(block(nn.GELU()), tokens=1, density=0.1, union_density=0.1)
    assert step.path == "dense"


def test_it_serves_a_measurement(machine):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, D))
    nn.init.constant_(model[0].bias, -1.2)
    blocks = find_blocks(model)
    report = measure(model, [torch.randn(20, D)], blocks=blocks, cost=predict.machine_cost(blocks))
    assert [p.tokens for p in report.blocks[0].predicted] == [1, 2, 4, 8, 16]
    assert all(p.speedup > 1.5 for p in report.blocks[0].predicted)


def test_an_unmeasured_machine(machine):
    half = nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, D)).to(torch.float64)
    blocks = find_blocks(half)
    assert predict.machine_cost(blocks) is None
    with pytest.raises(ImplUnavailable, match=r"no cost model for torch\.float64.*doctor --remeasure"):
        predict.MachineCost()(blocks[0], tokens=1, density=0.1, union_density=0.1)
