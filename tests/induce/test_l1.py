"""The penalty recipe, schedules, chains of recipes, and the revival of dead neurons."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.accelerate.machine import costs
from lazyneuron.blocks import Activation, find_blocks
from lazyneuron.core.errors import CheckpointError, ConfigError, DataError, NoBlocksError
from lazyneuron.core.undo import active_changes, restore_
from lazyneuron.induce import (
    L1,
    Chain,
    Constant,
    DoublyBiased,
    KeepTop,
    Linear,
    Progressive,
    Relufy,
    Threshold,
    added_loss,
    plan,
    revive_,
    sparsify_,
)
from lazyneuron.induce.recipe import recipe_from_data
from lazyneuron.measure import measure
from lazyneuron.save import load_, save
from tests.accelerate.conftest import made_up
from tests.blocks.architectures import KNOWN
from tests.induce.networks import gelu_mlp, inputs
from tests.induce.test_doubly_biased import outputs


def relu_mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 6))


@pytest.mark.parametrize("weighted", [True, False])
def test_the_added_loss_is_the_mean_of_the_hidden_activations(weighted):
    model, x = gelu_mlp().train(), inputs(rows=32)
    plain = model(x)
    sparsify_(model, L1(strength=0.5, weighted=weighted))
    assert torch.equal(model(x), plain)
    added = added_loss(model)
    (up, act, down), norm, (up2, act2, down2) = model
    with torch.no_grad():
        h = act(up(x))
        h2 = act2(up2(norm(down(h))))
    weights = [d.weight.detach().norm(dim=0) if weighted else torch.ones(24) for d in (down, down2)]
    wanted = 0.5 * ((h.abs() * weights[0]).mean() + (h2.abs() * weights[1]).mean()) / 2
    torch.testing.assert_close(added, wanted)
    added.backward()
    assert bool((up.weight.grad != 0).any())
    with pytest.raises(DataError, match="No watched block ran"):
        added_loss(model)
    model.eval()(x)
    with pytest.raises(DataError, match="training mode"):
        added_loss(model)


def test_training_with_it_lowers_the_density():
    densities = {}
    for strength in (0.0, 1.0):
        model, x = relu_mlp().train(), inputs(rows=256)
        target = inputs(rows=256, seed=9)
        sparsify_(model, L1(strength=strength))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(60):
            ((model(x) - target).square().mean() + added_loss(model)).backward()
            optimizer.step()
            optimizer.zero_grad()
        densities[strength] = measure(model.eval(), [x]).density
    assert densities[1.0] < 0.7 * densities[0.0]


def test_a_watched_model_is_copied_saved_restored_and_accelerated(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))
    model, x = relu_mlp().train(), inputs()
    receipt = sparsify_(model, L1(strength=Linear(start=0, end=1, steps=4)))
    model(x)
    twin = copy.deepcopy(model)
    with pytest.raises(DataError, match="No watched block"):
        added_loss(twin, step=1)
    twin(x)
    torch.testing.assert_close(added_loss(twin, step=2), added_loss(model, step=4) / 2)
    with pytest.raises(ConfigError, match="number of steps"):
        added_loss(model)
    with pytest.raises(NoBlocksError, match="already"):
        sparsify_(model, L1())
    save(model, tmp_path, receipt)
    other = relu_mlp().train()
    load_(other, tmp_path)
    other(x)
    assert added_loss(other, step=4).item() > 0
    wanted = model.eval()(x).detach()
    made = accelerate_(model, impl="gather")
    with torch.no_grad():
        torch.testing.assert_close(model(x), wanted)
    restore_(model, made)
    restore_(model, receipt)
    with pytest.raises(ConfigError, match="carries no penalty"):
        added_loss(model)


def test_a_penalty_that_is_not_finite_names_its_block():
    model = gelu_mlp().train()
    sparsify_(model, L1())
    model(torch.full((2, 6), math.inf))
    with pytest.raises(DataError, match="The penalty of 0 is not finite"):
        added_loss(model)


def test_schedules():
    line = Linear(start=1.0, end=3.0, steps=4)
    assert [line.at(s) for s in (0, 1, 4, 9)] == [1.0, 1.5, 3.0, 3.0]
    steps = Progressive(stages=((2, 0.5), (4, 1.5), (4, 2.0)))
    assert [steps.at(s) for s in (0, 1, 2, 4, 6, 8, 10, 99)] == pytest.approx([0.5, 0.5, 0.5, 1, 1.5, 1.75, 2, 2])
    assert Constant(2.0).at(None) == 2.0
    for schedule in (line, steps, Constant(0.1)):
        config = L1(strength=schedule)
        assert L1.from_data(json.loads(json.dumps(config.to_data()))) == config
        if not isinstance(schedule, Constant):
            with pytest.raises(ConfigError, match="at least 0, got step=-1"):
                schedule.at(-1)
    for wrong in (
        lambda: Linear(start=-1, end=0, steps=1),
        lambda: Linear(start=0, end=1, steps=0),
        lambda: Progressive(stages=()),
        lambda: Progressive(stages=((0, 1.0),)),
        lambda: L1(strength=math.nan),
        lambda: L1(penalty="l2"),
        lambda: L1(blocks="all"),
    ):
        with pytest.raises(ConfigError):
            wrong()
    with pytest.raises(CheckpointError, match="no schedule"):
        L1.from_data({"config": "L1", "strength": {"schedule": "Unheard"}})


def test_a_chain_is_its_recipes_one_after_another(tmp_path):
    model, one_by_one, x = gelu_mlp(), gelu_mlp(), inputs()
    before = model(x)
    recipes = (Relufy(), Threshold(density=0.2), L1(strength=0.1))
    receipt = sparsify_(model, Chain(recipes), batches=[x])
    for recipe in recipes:
        sparsify_(one_by_one, recipe, batches=[x])
    assert torch.equal(model(x), one_by_one(x))
    assert (len(active_changes(model)), len(active_changes(one_by_one))) == (1, 3)
    assert [c.details.get("density") is not None for c in receipt.changes] == [False, False, True, True, False, False]
    saved = recipe_from_data(json.loads(json.dumps(dict(receipt.config))))
    assert saved.to_data() == receipt.config
    save(model, tmp_path, receipt)
    other = gelu_mlp(seed=3)
    load_(other, tmp_path)
    assert torch.equal(other(x), model(x))
    restore_(model, receipt)
    assert torch.equal(model(x), before)


def test_a_chain_is_all_or_nothing():
    model, x = gelu_mlp(), inputs()
    before = model(x)
    assert len(plan(model, Chain((Relufy(), L1()))).replaced) == 4
    for recipes in ((Relufy(), Relufy()), (Relufy(), Threshold(density=0.2)), (L1(), L1())):
        with pytest.raises((NoBlocksError, ConfigError)):
            sparsify_(model, Chain(recipes))
        assert torch.equal(model(x), before)
        assert active_changes(model) == ()
        model.train()(x)
        with pytest.raises(ConfigError, match="carries no penalty"):
            added_loss(model)
        model.eval()
    for wrong in ((), (Relufy(),), [Relufy(), L1()], (Chain((Relufy(), L1())), L1())):
        with pytest.raises(ConfigError, match=r"chain"):
            Chain(wrong)
    with pytest.raises(CheckpointError, match="no Chain"):
        recipe_from_data({"config": "Chain", "recipes": 3})


def test_dead_neurons_fire_again_and_the_outputs_stay():
    model, x = relu_mlp(), inputs(rows=512)
    with torch.no_grad():
        model[0].bias[:5] = -50.0
    before, bias = model(x).detach(), model[0].bias.detach().clone()
    receipt = revive_(model, [x], share=0.1)
    assert receipt.changes[0].details["neurons"] == [0, 1, 2, 3, 4]
    torch.testing.assert_close(model(x), before)
    fired = (model[1](model[0](x)) > 0).float().mean(0)
    assert fired[:5].tolist() == pytest.approx([0.1] * 5, abs=0.01)
    assert torch.equal(model[0].bias[5:], bias[5:])
    model(x).square().sum().backward()
    assert bool((model[2].weight.grad[:, :5] != 0).all())
    with pytest.raises(NoBlocksError, match="All of its neurons fire"):
        revive_(model, [x])
    restore_(model, receipt)
    assert torch.equal(model[0].bias, bias)
    with pytest.raises(ConfigError, match="fraction"):
        revive_(model, [x], share=1.0)
    with pytest.raises(NoBlocksError, match="not zero up to"):
        revive_(gelu_mlp(), [x])


def test_revival_without_a_bias_is_refused():
    known = KNOWN["llama"]
    model = known.model()
    sparsify_(model, Relufy())
    with pytest.raises(NoBlocksError, match="no bias to raise"):
        revive_(model, [known.batch])


ALL = {
    "relufy": Relufy(activation=Activation("fatrelu", (0.05,))),
    "doubly": DoublyBiased(max_len=16, per_position=False, noise_rho=0.05),
    "threshold": Threshold(density=0.3),
    "chain": Chain((Relufy(activation=Activation("fatrelu", (0.01,))), L1(strength=0.1))),
}


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5_gated", "llama", "phi3", "vit", "encoder_layer", "opt"])
@pytest.mark.parametrize("recipe", ALL)
def test_every_recipe_runs_sparsely_with_the_same_outputs(recipe, name, monkeypatch):
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))
    known = KNOWN[name]
    model = known.model()
    sparsify_(model, ALL[recipe], batches=[known.batch])
    wanted = outputs(model, known.batch)
    made = accelerate_(model, impl="gather")
    assert [c.action for c in made.changes] == ["accelerated"] * len(find_blocks(KNOWN[name].model()))
    torch.testing.assert_close(outputs(model, known.batch), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"group": 4}, {"statistical": True}])
def test_recipes_without_a_zero_interval_are_refused_and_change_nothing(options):
    known = KNOWN["gpt2"]
    model = known.model()
    sparsify_(model, KeepTop(density=0.25, **options))
    wanted = outputs(model, known.batch)
    with pytest.raises(NoBlocksError, match="depends on the whole token"):
        accelerate_(model)
    assert torch.equal(outputs(model, known.batch), wanted)
