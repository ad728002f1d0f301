"""Calibrated thresholds: the density asked for, the error reported, the allocation against brute force, refusals."""

import itertools
import json

import pytest
import torch
from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.accelerate.machine import costs
from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import CheckpointError, ConfigError, DataError, NoBlocksError
from lazyneuron.core.undo import active_changes, restore_
from lazyneuron.induce import NeuronThreshold, Threshold, block_samples, plan, sparsify_
from lazyneuron.induce.training.allocation import Curve, Point, by_error_per_byte, mean_density
from lazyneuron.measure import measure
from lazyneuron.save import load_, save
from tests.accelerate.conftest import made_up
from tests.blocks.architectures import KNOWN
from tests.induce.networks import gelu_mlp, inputs
from tests.induce.test_doubly_biased import outputs


def data(n: int = 4) -> list[torch.Tensor]:
    return [inputs(rows=128, seed=k) for k in range(n)]


@pytest.mark.parametrize("criterion", ["magnitude", "weighted"])
@pytest.mark.parametrize("allocate", ["measured", "uniform"])
def test_reaches_the_density_and_reports_the_error(criterion, allocate):
    model, original, batches = gelu_mlp(), gelu_mlp(), data()
    receipt = sparsify_(model, Threshold(density=0.3, criterion=criterion, allocate=allocate), batches=batches)
    densities = [c.details["density"] for c in receipt.changes]
    assert sum(densities) / 2 == pytest.approx(0.3, abs=0.03)
    assert allocate == "measured" or densities == pytest.approx([0.3, 0.3], abs=0.01)
    first = receipt.changes[0]
    x = torch.cat(batches)
    assert measure(model, batches).blocks[0].density == pytest.approx(first.details["density"], abs=1e-6)
    with torch.no_grad():
        wanted, got = original[0](x), model[0](x)
    error = (got - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
    assert float(error) == pytest.approx(first.details["error"], rel=1e-3)
    restore_(model, receipt)
    assert torch.equal(model(x), original(x))


def test_weighing_neurons_by_their_columns_lowers_the_error():
    batches = data()
    errors = {}
    for criterion in ("magnitude", "weighted"):
        model = gelu_mlp()
        with torch.no_grad():
            model[0][2].weight *= torch.logspace(-2, 1, 24)
        receipt = sparsify_(model, Threshold(density=0.3, criterion=criterion, blocks=("0",)), batches=batches)
        errors[criterion] = receipt.changes[0].details["error"]
    assert errors["weighted"] < 0.5 * errors["magnitude"]


@pytest.mark.parametrize("allocate", ["measured", "uniform"])
def test_stays_within_an_error_budget(allocate):
    receipt = sparsify_(gelu_mlp(), Threshold(error=0.02, allocate=allocate), batches=data())
    errors = [c.details["error"] for c in receipt.changes]
    assert 0 < sum(errors) / 2 <= 0.02
    assert allocate == "measured" or max(errors) <= 0.02
    assert all(c.details["density"] < 1 for c in receipt.changes)


def test_allocation_against_brute_force():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        curves = {}
        for name in "abc":
            falls = torch.rand(5, generator=generator).cumsum(0)
            densities = [1.0, *(1 - falls / falls[-1] * 0.9).tolist()]
            slopes = torch.rand(5, generator=generator).sort().values  # convex, where greedy is best
            error, points = 0.0, [Point(threshold=0, density=1.0, error=0.0)]
            for before, after, slope in zip(densities, densities[1:], slopes.tolist(), strict=False):
                error += slope * (before - after)
                points.append(Point(threshold=0, density=after, error=error))
            curves[name] = Curve(points=tuple(points), weights=100)
        chosen = by_error_per_byte(curves, density=0.5, error=None)
        spent, reached = sum(p.error for p in chosen.values()), mean_density(chosen, curves)
        assert reached <= 0.5 + 1e-3
        for combination in itertools.product(*(c.points for c in curves.values())):
            other = dict(zip(curves, combination, strict=True))
            if mean_density(other, curves) <= reached:
                assert sum(p.error for p in other.values()) >= spent - 1e-12


@pytest.mark.parametrize("name", ["bert", "t5", "llama", "phi3", "gemma", "gpt2"])
def test_architectures_run_sparsely_with_the_same_outputs(name, monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))
    known = KNOWN[name]
    model = known.model()
    before = outputs(model, known.batch)
    receipt = sparsify_(model, Threshold(density=0.2), batches=[known.batch])
    wanted = outputs(model, known.batch)
    assert not torch.allclose(wanted, before)
    save(model, tmp_path, receipt)
    made = accelerate_(model, impl="gather")
    assert [c.action for c in made.changes] == ["accelerated"] * known.count
    torch.testing.assert_close(outputs(model, known.batch), wanted, rtol=1e-4, atol=1e-4)
    twin = known.model()
    load_(twin, tmp_path)
    assert torch.equal(outputs(twin, known.batch), wanted)


def test_weighted_thresholds_are_saved_and_refused_by_name(tmp_path):
    model, x = gelu_mlp(), inputs()
    receipt = sparsify_(model, Threshold(density=0.3, criterion="weighted"), batches=data())
    assert isinstance(model[0][1], NeuronThreshold)
    save(model, tmp_path, receipt)
    twin = gelu_mlp(seed=5)
    load_(twin, tmp_path)
    assert torch.equal(twin(x), model(x))
    with pytest.raises(NoBlocksError, match="holds the tensor 'limits'"):
        accelerate_(model)


def test_goals_that_cannot_be_met_change_nothing():
    model, x = gelu_mlp(), inputs()
    before = model(x)
    for config, sentence in (
        (Threshold(density=0.05, error=0.001), "cannot be met within the error 0.001: 0"),
        (Threshold(density=0.05, error=0.001, allocate="uniform"), "cannot be met within the error 0.001: 0"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            sparsify_(model, config, batches=data())
    with pytest.raises(ConfigError, match="pass sparsify_"):
        sparsify_(model, Threshold(density=0.3))
    with pytest.raises(DataError, match="No tokens"):
        sparsify_(model, Threshold(density=0.3), batches=[])
    with pytest.raises(DataError, match="not finite"):
        sparsify_(model, Threshold(density=0.3), batches=[torch.full((4, 6), float("nan"))])
    assert torch.equal(model(x), before)
    assert active_changes(model) == ()


def test_bad_configs_and_blocks():
    config = Threshold(density=0.25, blocks=("a", "b*"), thresholds={"a": 0.5}, criterion="weighted")
    assert Threshold.from_data(json.loads(json.dumps(config.to_data()))) == config
    with pytest.raises(CheckpointError, match="no Threshold"):
        Threshold.from_data({"config": "Threshold"})
    for wrong in (
        {},
        {"density": 1.0},
        {"error": 0.0},
        {"density": 0.1, "criterion": "x"},
        {"density": 0.1, "blocks": ""},
    ):
        with pytest.raises(ConfigError):
            Threshold(**wrong)
    mish = nn.Sequential(nn.Linear(6, 20), nn.Mish(), nn.Linear(20, 6)).eval()
    with pytest.raises(NoBlocksError, match="no thresholded form of its activation"):
        sparsify_(mish, Threshold(density=0.1), batches=data())
    assert {c.action for c in plan(gelu_mlp(), Threshold(density=0.1)).changes} == {"replaced"}


def test_relu_blocks_keep_their_kind_of_rectifier():
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 6)).eval()
    sparsify_(model, Threshold(density=0.1), batches=data())
    (block,) = find_blocks(model)
    assert block.activation.kind == "fatrelu"
    samples = block_samples(model, [block], batches=data())
    z = model[0](samples[block.name].inputs)
    assert (z > block.activation.parameters[0]).float().mean().item() == pytest.approx(0.1, abs=0.002)
