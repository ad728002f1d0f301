"""``lazyneuron sparsify``: what it saves is read by the other commands, and what it cannot do is one sentence."""

import json
import sys
import textwrap

import numpy as np
import pytest
import torch

import lazyneuron as lazy
from lazyneuron.accelerate.machine import costs
from lazyneuron.blocks import find_blocks
from lazyneuron.cli.model import load_model
from lazyneuron.cli.sparsify import make_recipe
from lazyneuron.core.errors import ConfigError
from lazyneuron.induce import Chain, DoublyBiased, KeepTop, Relufy, Threshold
from tests.accelerate.conftest import made_up
from tests.blocks.architectures import KNOWN
from tests.cli.command import run


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = """
    import torch
    from torch import nn

    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 24), nn.GELU(), nn.Linear(24, 6))
    """
    (tmp_path / "a_model_here.py").write_text(textwrap.dedent(code))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(64, 6)).astype("float32"))
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))
    monkeypatch.setattr(costs, "are_known", lambda dtype: True)
    yield tmp_path
    sys.modules.pop("a_model_here", None)


def test_a_callables_model_is_saved_and_read_by_the_other_commands(here, monkeypatch, capsys):
    options = ("--recipe", "threshold", "--set", "density=0.25", "--data", "x.npy")
    assert run(monkeypatch, "sparsify", "a_model_here:build", *options, "--out", "sparse", "--json", "r.json") == 0
    out = capsys.readouterr().out
    assert "a_model_here:build@sparse" in out
    assert json.loads((here / "r.json").read_text())["config"]["density"] == 0.25
    loaded = load_model("a_model_here:build@sparse")
    assert [b.activation.kind for b in find_blocks(loaded.model)] == ["thresholded_gelu"]
    for command in ("measure", "accelerate"):
        assert run(monkeypatch, command, "a_model_here:build@sparse", "--data", "x.npy") == 0
    assert "0.25" in capsys.readouterr().out
    assert run(monkeypatch, "sparsify", "a_model_here:build@sparse", "--recipe", "relufy", "--out", "again") == 0
    assert [len(lazy.receipts(load_model(f"a_model_here:build@{n}").model)) for n in ("sparse", "again")] == [1, 2]


def test_a_hugging_face_folder_is_saved_and_read(here, monkeypatch, capsys):
    known = KNOWN["gpt2"]
    known.model().save_pretrained("dense")
    chain = ("--recipe", "doubly-biased", "--set", "max_len=16", "--recipe", "keep-top", "--set", "density=0.25")
    assert run(monkeypatch, "sparsify", "dense", *chain, "--out", "sparse") == 0
    loaded = load_model("sparse")
    assert [b.activation.kind for b in find_blocks(loaded.model)] == ["top_k"] * 2
    assert sum("zeroth_bias" in key for key in loaded.model.state_dict()) == 2
    dense = load_model("dense").model
    for name, value in dense.state_dict().items():
        if "ln_2.bias" not in name:  # dropped by the recipe
            assert torch.equal(value, loaded.model.state_dict()[name])
    assert run(monkeypatch, "sparsify", "dense", "--recipe", "relufy", "--out", "dense") == 2
    assert "dense is the model's own folder" in capsys.readouterr().err


def test_without_out_nothing_is_written(here, monkeypatch, capsys):
    before = sorted(here.iterdir())
    assert run(monkeypatch, "sparsify", "a_model_here:build", "--recipe", "relufy") == 0
    assert "gelu is to become relu." in capsys.readouterr().out
    assert [p for p in sorted(here.iterdir()) if p.name != "__pycache__"] == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "prune"], "The recipe 'prune' is not known; there are "),
        (["--recipe", "relufy", "--recipe", "relufy"], "given twice"),
        (["--recipe", "relufy", "--set", "density=0.1"], "with a field of one of the recipes, got 'density=0.1'"),
        (["--recipe", "keep-top"], "lacks a field"),
        (["--recipe", "keep-top", "--set", "density=2"], "fraction between 0 and 1"),
        (["--recipe", "keep-top", "--set", "density=many"], "fraction between 0 and 1"),
        (["--recipe", "relufy", "--set", "activation=gelu"], "zero nowhere"),
        (["--recipe", "relufy", "--set", "per_block={}"], "use lazyneuron.sparsify_"),
        (["--recipe", "threshold", "--set", "density=0.1"], "calibrated on data"),
        (["--recipe", "doubly-biased"], "No norm with scales"),
        (["--recipe", "relufy", "--set", "blocks=nothing"], "No pattern matches"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(here, monkeypatch, capsys, options, message):
    assert run(monkeypatch, "sparsify", "a_model_here:build", *options, "--out", "sparse") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (here / "sparse").exists()


def test_recipes_from_options():
    assert make_recipe(["relufy"], ['activation=["fatrelu", 0.5]']).activation.parameters == (0.5,)
    chain = make_recipe(["doubly-biased", "threshold"], ["noise_rho=0.1", "error=0.01"])
    assert chain == Chain((DoublyBiased(noise_rho=0.1), Threshold(error=0.01)))
    assert make_recipe(["keep-top"], ["density=0.5", 'blocks=["a", "b"]']) == KeepTop(density=0.5, blocks=("a", "b"))
    assert make_recipe(["relufy"], []) == Relufy()
    with pytest.raises(ConfigError, match="got 'blocks=a'"):
        make_recipe(["relufy", "keep-top"], ["blocks=a"])
