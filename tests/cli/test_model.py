import shutil
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from lazyneuron.cli.model import load_model
from lazyneuron.core.errors import CheckpointError, ConfigError, ImplUnavailable


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = """
    import torch
    from torch import nn

    def build():
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)).train()

    class Family:
        build = staticmethod(build)

    number = 3
    a_module = build()
    wrong = lambda: "a string"

    def failing():
        raise OSError("no disk")
    """
    (tmp_path / "models_of_mine.py").write_text(textwrap.dedent(code))
    yield tmp_path
    sys.modules.pop("models_of_mine", None)


@pytest.mark.parametrize("name", ["models_of_mine:build", "models_of_mine:Family.build"])
def test_callable_in_the_current_folder(here, name):
    path = list(sys.path)
    loaded = load_model(name)
    assert loaded.model[0].weight.shape == (8, 4)
    assert not loaded.model.training
    assert loaded.tokenizer is None
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("models_of_mine:absent", ConfigError, "has no 'absent'"),
        ("models_of_mine:failing", ConfigError, r"'models_of_mine:failing' failed \(OSError: no disk\)"),
        ("models_of_mine:number", ConfigError, "is a int; name a callable"),
        ("models_of_mine:a_module", ConfigError, "is a Sequential; name a callable"),
        ("models_of_mine:wrong", ConfigError, "returned a str"),
        ("no_such_module_at_all:build", ConfigError, "Cannot import"),
        ("some-hub/some-model", ConfigError, "nothing is downloaded"),
        ("not a model", ConfigError, "There is no model 'not a model'"),
        (".", CheckpointError, r"has no config\.json"),
    ],
)
def test_what_is_no_model(here, name, error, message):
    with pytest.raises(error, match=message):
        load_model(name)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]))
    return folder


def test_folder(bert):
    loaded = load_model(str(bert))
    assert type(loaded.model).__name__ == "BertModel"
    assert not loaded.model.training
    assert loaded.notes == ()
    assert loaded.tokenizer("one two")["input_ids"] == [2, 5, 6, 3]


def copied(bert, tmp_path):
    return Path(shutil.copytree(bert, tmp_path / "copy"))


def test_folder_without_weights(bert, tmp_path):
    folder = copied(bert, tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        load_model(str(folder))


def test_pickled_weights_need_the_flag(bert, tmp_path):
    folder = copied(bert, tmp_path)
    weights = load_model(str(bert)).model.state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"can run any code.*--allow-pickle"):
        load_model(str(folder))
    loaded = load_model(str(folder), allow_pickle=True)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_safetensors_are_read_even_when_a_pickle_lies_beside_them(bert, tmp_path):
    folder = copied(bert, tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"not to be opened")
    assert load_model(str(folder), allow_pickle=True).model is not None


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_corrupt_folder(bert, tmp_path, file):
    folder = copied(bert, tmp_path)
    (folder / file).write_bytes(b"\x00garbage")
    with pytest.raises(CheckpointError, match="Cannot load the model"):
        load_model(str(folder))


def test_missing_weights_are_named(bert, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copied(bert, tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (note,) = load_model(str(folder)).notes
    assert note == "1 weights are not in the file and were set at random: encoder.layer.1.output.dense.weight."


def test_without_transformers(bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImplUnavailable, match=r"lazyneuron\[hf\]"):
        load_model(str(bert))


def test_settings_of_transformers_come_back(bert):
    import transformers

    before = transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    load_model(str(bert))
    assert (transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()) == before
