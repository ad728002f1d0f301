"""Every recipe on what it does not fit: one sentence, and the model is as it was."""

import copy
import json

import pytest
import torch
from torch import nn

from lazyneuron.core.errors import CheckpointError, ConfigError, DataError, LazyNeuronError, NoBlocksError, ShapeError
from lazyneuron.core.undo import active_changes
from lazyneuron.induce import (
    L1,
    Chain,
    DoublyBiased,
    KeepTop,
    Relufy,
    Threshold,
    added_loss,
    compact_,
    project_,
    revive_,
    sparsify_,
)
from lazyneuron.induce.recipe import recipe_from_data
from lazyneuron.save import load_, save
from tests.blocks.architectures import KNOWN
from tests.induce.networks import gelu_mlp, inputs
from tests.induce.test_doubly_biased import Block, tokens

RECIPES = [
    Relufy(),
    KeepTop(density=0.2),
    DoublyBiased(),
    Threshold(density=0.2),
    L1(),
    Chain((Relufy(), L1())),
]
BATCHES = [inputs()]


def no_block() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))


def bare() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 20), nn.Mish(), nn.Linear(20, 6))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: type(r).__name__)
def test_a_model_without_blocks(recipe):
    with pytest.raises(NoBlocksError, match="No MLP block was found in this model"):
        sparsify_(no_block(), recipe, batches=BATCHES)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if not isinstance(r, Chain)], ids=lambda r: type(r).__name__)
def test_patterns_that_hit_nothing(recipe):
    data = {**recipe.to_data(), "blocks": ["nowhere.*"]}
    model = gelu_mlp()
    keys = list(model.state_dict())
    with pytest.raises(NoBlocksError, match="No pattern matches its name"):
        sparsify_(model, recipe_from_data(data), batches=BATCHES)
    assert (list(model.state_dict()), active_changes(model)) == (keys, ())


@pytest.mark.parametrize(
    ("build", "recipe", "error", "sentence"),
    [
        (bare, DoublyBiased(), NoBlocksError, "No norm with scales"),
        (bare, Threshold(density=0.2), NoBlocksError, "no thresholded form"),
        (bare, Relufy(rectify_up=True), NoBlocksError, "not gated"),
        (bare, KeepTop(density=0.2, group=7), NoBlocksError, "do not divide into groups of 7"),
        (gelu_mlp, Threshold(density=0.02, error=1e-4), ConfigError, "cannot be met within the error"),
        (gelu_mlp, Threshold(density=0.2, thresholds={"nowhere": 0.1}), NoBlocksError, "calibration left it"),
        (KNOWN["opt"].model, DoublyBiased(), NoBlocksError, "flattened"),
        (KNOWN["written_out"].model, KeepTop(density=0.2), NoBlocksError, "written into a forward"),
        (KNOWN["written_out"].model, Threshold(density=0.2), NoBlocksError, "written into a forward"),
        (KNOWN["mixtral"].model, Relufy(), NoBlocksError, "looks like 3 experts in batched weights"),
    ],
    ids=lambda value: value.__name__ if callable(value) and hasattr(value, "__name__") else type(value).__name__,
)
def test_recipes_that_do_not_fit_change_nothing(build, recipe, error, sentence):
    model = build().eval()
    before = copy.deepcopy(model.state_dict())
    repr_before = repr(model)
    with pytest.raises(error, match=sentence) as caught:
        sparsify_(model, recipe, batches=BATCHES)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert repr(model) == repr_before
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
    assert active_changes(model) == ()


def test_sequences_longer_than_the_table_and_single_tokens():
    model = Block()
    sparsify_(model, DoublyBiased(max_len=4))
    with pytest.raises(ShapeError, match="knows 4 positions, got 5 tokens"):
        model(tokens())
    with pytest.raises(ShapeError, match="batch, tokens, width"):
        model(torch.randn(3, 6))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: type(r).__name__)
def test_a_checkpoint_of_another_model_is_refused_and_leaves_it_alone(recipe, tmp_path):
    model = gelu_mlp()
    save(model, tmp_path, sparsify_(model, recipe, batches=BATCHES))
    for other in (gelu_mlp(d=8), gelu_mlp(hidden=20), no_block()):
        before = copy.deepcopy(other.state_dict())
        with pytest.raises(CheckpointError):
            load_(other, tmp_path)
        assert list(other.state_dict()) == list(before)
        assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), before.values(), strict=True))
        assert active_changes(other) == ()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: type(r).__name__)
def test_recipes_spelt_wrongly(recipe):
    data = json.loads(json.dumps(recipe.to_data()))
    assert recipe_from_data(data).to_data() == recipe.to_data()
    for wrong in ({**data, "config": "Unheard"}, {**data, "unheard": 1}, {"config": data["config"]}):
        with pytest.raises(CheckpointError):
            recipe_from_data(wrong)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (project_, ConfigError, "no recipe to project"),
        (added_loss, ConfigError, "carries no penalty"),
        (lambda m: compact_(m, mode="observed"), ConfigError, "needs batches"),
        (lambda m: revive_(m, []), DataError, "No tokens"),
        (lambda m: revive_(m, BATCHES, blocks=("nowhere",)), NoBlocksError, "No MLP block is called nowhere"),
    ],
)
def test_verbs_without_what_they_need(call, error, sentence):
    model = gelu_mlp()
    with pytest.raises(error, match=sentence) as caught:
        call(model)
    assert isinstance(caught.value, LazyNeuronError)
    assert active_changes(model) == ()
