"""What one command saves, every other command opens, with all changes that were made before."""

from __future__ import annotations

import copy
import os
import sys
import textwrap

import numpy as np
import pytest
import torch

import lazyneuron as lazy
from lazyneuron.accelerate.machine import costs
from lazyneuron.blocks import Activation
from lazyneuron.cli.model import load_model
from lazyneuron.core import sealed
from tests.accelerate.conftest import made_up
from tests.cli.command import run

CODE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 6))
"""
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"]
FAT = ("--recipe", "relufy", "--set", 'activation=["fatrelu", 0.1]')
SAVING = {
    "sparsify": [("sparsify", *FAT)],
    "accelerate": [("accelerate",)],
    "sparsify, sparsify, accelerate": [("sparsify", *FAT), ("sparsify", "--recipe", "relufy"), ("accelerate",)],
}
READING = {
    "measure": (),
    "explain": ("--batches", "1"),
    "accelerate": ("--out", "once-more"),
    "sparsify": ("--recipe", "keep-top", "--set", "density=0.5", "--out", "once-more"),
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    sizes = dict(vocab_size=8, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    torch.manual_seed(0)
    transformers.BertForMaskedLM(transformers.BertConfig(**sizes, hidden_act="relu")).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models_to_save.py").write_text(textwrap.dedent(CODE))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 6)).astype("float32"))
    (tmp_path / "text.txt").write_text("one two\nthree\n" * 20)
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))
    monkeypatch.setattr(costs, "are_known", lambda dtype: True)
    yield tmp_path
    sys.modules.pop("models_to_save", None)


def output(model, *, text):
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 5, 3]])
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids).last_hidden_state if text else model(x)


@pytest.mark.parametrize("kind", ["folder", "callable"])
@pytest.mark.parametrize("saving", SAVING)
def test_every_command_opens_what_every_command_saved(here, bert, monkeypatch, capsys, saving, kind):
    text = kind == "folder"
    data = ("--data", "text.txt" if text else "x.npy", "--batch-size", "20")
    first = name = str(bert) if text else "models_to_save:build"
    wanted = load_model(first).model
    for number, (command, *options) in enumerate(SAVING[saving]):
        assert run(monkeypatch, command, name, *options, *data, "--out", f"saved-{number}") == 0
        name = f"saved-{number}" if text else f"models_to_save:build@saved-{number}"
        assert f"read it as {name}" in capsys.readouterr().out
        if command == "sparsify":
            recipe = lazy.Relufy(activation=Activation("fatrelu", (0.1,))) if options == list(FAT[:]) else lazy.Relufy()
            lazy.sparsify_(wanted, recipe)
    loaded = load_model(name).model
    assert torch.equal(output(loaded, text=text), output(wanted, text=text))
    assert [r.verb for r in lazy.receipts(loaded)] == [r.verb for r in lazy.receipts(wanted)]
    for command, options in READING.items():
        assert run(monkeypatch, command, name, *options, *data) == 0, capsys.readouterr().err
        if "--out" in options:
            again = load_model("once-more" if text else "models_to_save:build@once-more").model
            added = ["sparsify_"] if command == "sparsify" else []
            assert [r.verb for r in lazy.receipts(again)] == [r.verb for r in lazy.receipts(wanted)] + added
    if text and "accelerate" in saving:
        model = lazy.from_pretrained(name)
        assert [r.verb for r in lazy.receipts(model)][-1] == "accelerate_"
        torch.testing.assert_close(output(model, text=text), output(wanted, text=text), rtol=1e-4, atol=1e-5)


def test_the_library_saves_a_folder_that_the_commands_open(here, bert, monkeypatch):
    model = load_model(str(bert)).model
    lazy.sparsify_(model, lazy.Relufy(activation=Activation("fatrelu", (0.2,))))
    lazy.save(model, "saved", lazy.accelerate_(model))  # the earlier receipt is not given
    np.savez("ids.npz", input_ids=np.array([[2, 5, 6, 3]] * 8))
    for command in ("measure", "explain", "accelerate"):
        assert run(monkeypatch, command, "saved", "--data", "ids.npz") == 0
    loaded = load_model("saved").model
    assert [b.activation.parameters for b in lazy.find_blocks(loaded)] == [(0.2,)] * 2


def test_a_folder_of_another_model_is_refused_before_any_work(here, bert, monkeypatch, capsys):
    (here / "out").mkdir()
    (here / "out" / "vocab.txt").write_text("of another model")
    assert run(monkeypatch, "sparsify", bert, *FAT, "--out", "out") == 2
    assert "vocab.txt is another model's; save to another folder" in capsys.readouterr().err
    assert os.listdir(here / "out") == ["vocab.txt"]


@pytest.mark.parametrize("at", ["write_part", "seal"])
def test_ctrl_c_while_saving_leaves_no_folder(here, bert, monkeypatch, capsys, at):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sealed, at, interrupt)
    before = sorted(p.name for p in here.iterdir())
    assert run(monkeypatch, "sparsify", bert, *FAT, "--out", "new/folder") == 130
    assert "nothing was left half-written" in capsys.readouterr().err
    assert sorted(p.name for p in here.iterdir() if p.name != "__pycache__") == before


def test_a_folder_that_an_earlier_version_saved_is_opened(here, bert, monkeypatch):
    from safetensors.torch import save_file

    model = load_model(str(bert)).model
    receipt = lazy.sparsify_(model, lazy.Relufy(activation=Activation("fatrelu", (0.2,))))
    (here / "early").mkdir()
    save_file(copy.deepcopy(model.state_dict()), here / "early" / "model.safetensors")
    (here / "early" / "receipts.json").write_text(f"[{receipt.to_json()}]")
    (here / "early" / "config.json").write_bytes((bert / "config.json").read_bytes())
    loaded = load_model("early").model
    assert torch.equal(output(loaded, text=True), output(model, text=True))
    lazy.save(loaded, "early")
    assert not (here / "early" / "model.safetensors").exists()  # the weights of before, which nothing names any more
    assert torch.equal(output(load_model("early").model, text=True), output(model, text=True))
