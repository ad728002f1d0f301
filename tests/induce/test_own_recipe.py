"""A recipe in a user's own file: it registers, is applied, saved, loaded and named on the command line."""

import dataclasses
import json
import sys
import textwrap

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.cli.sparsify import make_recipe
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.replay import REPLAYS, replays
from lazyneuron.core.undo import transaction
from lazyneuron.induce import L1, Chain, Linear, Recipe, Relufy, plan, register_recipe
from lazyneuron.induce.recipe import RECIPES, recipe_from_data
from tests.core.resealed import reseal
from tests.induce.networks import gelu_mlp, inputs

CODE = """
from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lazyneuron.blocks import Activation, replace_activation_
from lazyneuron.induce import Fitted, L1, Recipe, register_recipe


@register_recipe
@dataclasses.dataclass(frozen=True, kw_only=True)
class CutAt(Recipe):
    activation: Activation = Activation("fatrelu", (0.5,))
    cuts: Mapping[str, Activation] = dataclasses.field(default_factory=dict)
    size: tuple[int, float] = (1, 0.5)
    label: str | None = None
    inner: L1 | None = None
    blocks: tuple[str, ...] = ("*",)

    def refuses(self, model, block, *, blocks):
        return "It has 20 neurons." if block.d_hidden == 20 else None

    def describes(self, model, block):
        return "It is to be cut."

    def notes(self):
        return ("Cut.",)

    def fit(self, model, blocks, *, batches):
        if self.cuts:
            return Fitted(recipe=self)
        at = float(batches[0].abs().mean())
        cuts = {block.name: Activation("fatrelu", (at,)) for block in blocks}
        return Fitted(recipe=dataclasses.replace(self, cuts=cuts), notes=("Fitted.",))

    def install_(self, change, block, *, fitted):
        replace_activation_(change, block, self.cuts[block.name])
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_recipe_here.py").write_text(textwrap.dedent(CODE))
    before = dict(RECIPES)
    yield "own_recipe_here:CutAt"
    sys.modules.pop("own_recipe_here", None)
    RECIPES.clear()
    RECIPES.update(before)


def test_it_is_applied_saved_and_loaded(own, tmp_path):
    recipe = make_recipe([own], ['label="a"', "size=[3, 0.25]", 'activation=["fatrelu", 0.25]'])
    model, x = gelu_mlp(), inputs()
    assert [c.reason for c in plan(model, recipe).changes] == ["It is to be cut."] * 2
    receipt = lazy.sparsify_(model, recipe, batches=[x])
    assert receipt.notes == ("Cut.", "Fitted.")
    z, at = torch.linspace(-2, 2, 99), x.abs().mean()
    assert torch.equal(lazy.find_blocks(model)[0].activation(z), torch.where(z > at, z, 0.0))
    lazy.save(model, tmp_path / "saved")
    fresh = gelu_mlp(seed=3)
    (again,) = lazy.load_(fresh, tmp_path / "saved")
    assert torch.equal(fresh(x), model(x)) and again.config == receipt.config
    RECIPES.pop("CutAt")
    with pytest.raises(CheckpointError, match="'CutAt' is not known; import the module that registers it"):
        lazy.load_(gelu_mlp(), tmp_path / "saved")
    with pytest.raises(ConfigError, match="CutAt could not be loaded again; decorate it with register_recipe"):
        lazy.sparsify_(gelu_mlp(), recipe, batches=[x])


def test_every_kind_of_field_comes_back(own):
    kind = type(make_recipe([own], []))
    recipe = kind(
        cuts={"a": Relufy().activation}, size=(2, 0.1), inner=L1(strength=Linear(start=0.0, end=1.0, steps=3))
    )
    for config in (recipe, Chain((recipe, Relufy()))):
        assert recipe_from_data(json.loads(json.dumps(config.to_data()))) == config
    for field, value in {"size": [1], "blocks": "all", "activation": ["fatrelu", True], "unheard": 1}.items():
        with pytest.raises(CheckpointError, match="This is no CutAt config"):
            recipe_from_data({**recipe.to_data(), field: value})


def test_what_is_no_recipe_is_not_registered():
    @dataclasses.dataclass
    class Thawed(Recipe):
        blocks: tuple[str, ...] = ("*",)

    for wrong in (Thawed, nn.Linear, 3):
        with pytest.raises(ConfigError, match="a frozen dataclass that derives from Recipe"):
            register_recipe(wrong)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Relufy(Recipe):
        blocks: tuple[str, ...] = ("*",)

    with pytest.raises(ConfigError, match="There is a recipe Relufy already"):
        register_recipe(Relufy)
    dataclass_of_nothing_known = dataclasses.make_dataclass(
        "Vague", [("a", "Unheard"), ("blocks", "tuple[str, ...]")], bases=(Recipe,), frozen=True
    )
    with pytest.raises(ConfigError, match="annotations of Vague cannot be resolved"):
        register_recipe(dataclass_of_nothing_known)


# as versions before the register wrote them
OLD = [
    {"config": "Relufy", "blocks": ["*"], "activation": ["relu"], "per_block": {"0": ["fatrelu", 0.25]}},
    {"config": "KeepTop", "density": 0.25, "statistical": False, "straight_through": True, "blocks": ["*"]},
    {
        "config": "Chain",
        "recipes": [
            {"config": "Relufy", "blocks": ["*"], "activation": ["relu"], "per_block": {}, "rectify_up": False},
            {
                "config": "L1",
                "strength": {"schedule": "Progressive", "stages": [[5, 0.01], [20, 0.1]]},
                "penalty": "l1",
                "weighted": True,
                "blocks": ["*"],
            },
        ],
    },
    {"config": "RouteFFN", "router": "lsh", "experts": 4, "jitter": 0.0, "blocks": ["*"], "seed": 0},
]


@pytest.mark.parametrize("data", OLD, ids=lambda data: data["config"])
def test_receipts_of_before_are_read(data):
    model = gelu_mlp()
    lazy.sparsify_(model, recipe_from_data(data))
    kinds = {"Relufy": "fatrelu", "KeepTop": "top_k", "Chain": "relu"}
    if data["config"] in kinds:
        assert lazy.find_blocks(model)[0].activation.kind == kinds[data["config"]]


def test_a_verb_is_one_registration(tmp_path):
    def scale_(model, factor):
        receipt = Receipt(verb="scale_", config={"factor": factor}, changes=())
        with transaction(model, receipt.id) as change:
            change.set(model, "factor", factor)
            change.receipt = receipt
        return receipt

    model = nn.Linear(2, 2)
    scale_(model, 3.0)
    lazy.save(model, tmp_path)
    fresh = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="saved change 'scale_' is not known"):
        lazy.load_(fresh, tmp_path)
    replays("scale_")(lambda model, receipt: scale_(model, receipt.config["factor"]))
    try:
        lazy.load_(fresh, tmp_path)
        assert fresh.factor == 3.0 and torch.equal(fresh.weight, model.weight)
        reseal(tmp_path / "receipts.json", lambda c: {**c, "receipts": [{**c["receipts"][0], "config": {}}]})
        with pytest.raises(CheckpointError, match="The saved scale_ does not fit this model"):
            lazy.load_(nn.Linear(2, 2), tmp_path)
    finally:
        REPLAYS.pop("scale_")
