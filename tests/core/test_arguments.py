"""Arguments of the wrong kind: every verb says in one sentence what they should be, and changes and writes nothing."""

import numpy as np
import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.blocks import find_blocks
from lazyneuron.core.arguments import check_switch, check_tensor, described
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce import KeepTop, Threshold, plan

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def model():
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


def mean_square(output, batch):
    return output.square().mean()


NO_MODELS = [None, "model", nn.Linear, [nn.Linear(2, 2)], {}, lambda x: x]
VERBS = {
    "measure": lambda m, _: lazy.measure(m, [X]),
    "sparsify_": lambda m, _: lazy.sparsify_(m, lazy.Relufy()),
    "accelerate_": lambda m, _: lazy.accelerate_(m),
    "plan_acceleration": lambda m, _: lazy.plan_acceleration(m),
    "explain": lambda m, _: lazy.explain(m, [X], mean_square),
    "restore_": lambda m, _: lazy.restore_(m, "id"),
    "save": lambda m, folder: lazy.save(m, folder / "saved"),
    "load_": lazy.load_,
    "compact_": lambda m, _: lazy.compact_(m),
    "project_": lambda m, _: lazy.project_(m),
    "find_blocks": lambda m, _: find_blocks(m),
}
NO_BATCHES = [
    ("text", "single str"),
    (X, "single Tensor"),
    ({"input": X}, "single dict"),
    (3, "got 3"),
    (nn.Linear, "the class Linear"),
    (["text"], "got str"),
    ([[X]], "got list"),
    ([None], "got NoneType"),
    ([X.numpy()], "got ndarray"),
    ([{"x": X}], "cannot run on this batch"),
    ([X[:, :3]], "cannot run on this batch"),
]
ON_BATCHES = {
    "measure": lambda b: lazy.measure(model(), b),
    "accelerate_": lambda b: lazy.accelerate_(model(), b),
    "explain": lambda b: lazy.explain(model(), b, mean_square),
    "sparsify_": lambda b: lazy.sparsify_(model(), Threshold(density=0.3), batches=b),
    "compact_": lambda b: lazy.compact_(model(), b, mode="observed"),
}
NO_RECIPES = [None, "relu", lazy.Relufy, nn.ReLU(), torch.relu, {"config": "Relufy"}, [lazy.Relufy()], lazy.RouteFFN]


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_model(verb, tmp_path):
    for wrong in NO_MODELS:
        with pytest.raises(ConfigError, match=r"^A model is a torch\.nn\.Module, got .*; pass the model itself\.$"):
            VERBS[verb](wrong, tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ON_BATCHES)
def test_what_are_no_batches(verb):
    for wrong, said in NO_BATCHES:
        with pytest.raises(DataError, match=said):
            ON_BATCHES[verb](wrong)


@pytest.mark.parametrize("verb", [lazy.sparsify_, plan])
def test_what_is_no_recipe(verb):
    for wrong in NO_RECIPES:
        with pytest.raises(ConfigError, match=r"^A recipe is a DoublyBiased, .*Relufy.* Chain of them, got "):
            verb(model(), wrong)


@pytest.mark.parametrize("wrong", [None, 3, [], lazy.Receipt, {}])
def test_what_is_no_receipt(wrong, tmp_path):
    with pytest.raises(ConfigError, match="A receipt is what a verb returned"):
        lazy.restore_(model(), wrong)
    with pytest.raises(ConfigError, match="A receipt is what a verb returned"):
        lazy.save(model(), tmp_path / "new", wrong)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("wrong", [None, 3, "", [], "a\0b"])
def test_what_names_no_folder(wrong):
    with pytest.raises(ConfigError, match="A folder is named by text or a path"):
        lazy.save(model(), wrong)
    with pytest.raises(ConfigError, match="A folder is named by text or a path"):
        lazy.load_(model(), wrong)
    with pytest.raises(ConfigError, match="A folder is named by text or a path"):
        lazy.from_pretrained(wrong)


@pytest.mark.parametrize(
    ("verb", "options", "said"),
    [
        ("measure", {"threshold": "a"}, "threshold"),
        ("measure", {"tokens_mask": 3}, "tokens_mask"),
        ("measure", {"blocks": "mlp"}, "find_blocks"),
        ("measure", {"blocks": 3}, "find_blocks"),
        ("measure", {"cost": 3}, "cost"),
        ("explain", {"loss": "mse"}, "loss"),
        ("explain", {"loss": nn.MSELoss}, "loss"),
        ("explain", {"loss": mean_square, "loss_scale": None}, "loss_scale"),
        ("explain", {"loss": mean_square, "thresholds": 3}, "thresholds"),
        ("explain", {"loss": mean_square, "thresholds": ["a"]}, "thresholds"),
        ("explain", {"loss": mean_square, "blocks": "x"}, "find_blocks"),
        ("accelerate_", {"progress": None}, "progress"),
        ("accelerate_", {"guarantee": None}, "guarantee"),
        ("accelerate_", {"weights": 8}, "weights"),
        ("accelerate_", {"impl": []}, "impl"),
    ],
)
def test_options_of_the_wrong_kind(verb, options, said):
    with pytest.raises(ConfigError, match=said):
        getattr(lazy, verb)(model(), [X], **options)


@pytest.mark.parametrize(
    ("recipe", "options", "said"),
    [
        (lazy.Relufy, {"blocks": 3}, "glob pattern"),
        (lazy.Relufy, {"blocks": (3,)}, "glob pattern"),
        (lazy.Relufy, {"activation": "relu"}, "Activation"),
        (lazy.Relufy, {"activation": torch.relu}, "Activation"),
        (lazy.Relufy, {"per_block": 3}, "per_block"),
        (lazy.RouteFFN, {"blocks": "mlp"}, "glob pattern"),
        (lazy.DoublyBiased, {"blocks": ()}, "glob pattern"),
        (KeepTop, {"density": "0.3"}, "fraction between 0 and 1"),
        (Threshold, {"density": float("nan")}, "fraction between 0 and 1"),
    ],
)
def test_fields_of_recipes(recipe, options, said):
    with pytest.raises(ConfigError, match=said):
        recipe(**options)


@pytest.mark.parametrize("wrong", [None, 0, 1, "no", "True", [], np.True_])
def test_what_is_no_switch(wrong):
    check_switch("On", True)
    check_switch("On", False)
    with pytest.raises(ConfigError, match=r"^On is True or False, got "):
        check_switch("On", wrong)


@pytest.mark.parametrize("wrong", [None, 1.0, [1.0], np.ones(3), torch.Tensor])
def test_what_is_no_tensor(wrong):
    check_tensor("Rows", torch.ones(2, dtype=torch.int64))
    check_tensor("Rows", torch.ones(2, dtype=torch.float16), floats=True)
    with pytest.raises(DataError, match=r"^Rows is a torch\.Tensor, got .*; convert"):
        check_tensor("Rows", wrong)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(DataError, match=rf"^Rows is a tensor of floats, got {dtype}; convert"):
            check_tensor("Rows", torch.ones(2, dtype=dtype), floats=True)


def test_whole_numbers_without_a_text_are_described():
    assert described(-(10**5000)) == "a whole number of about 2^16610"
    assert described(10**18) == "1000000000000000000" and described(True) == "True"
