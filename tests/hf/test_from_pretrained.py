"""`from_pretrained(..., quantization_config=LazyConfig(...))`: the bytes of our own loading, saved and reloaded."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
)

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.modules import Quantised
from lazyneuron.cli.model import load_model
from lazyneuron.core.errors import AssumptionError, CheckpointError, ConfigError, ShapeError
from lazyneuron.generate.load import load_quantised
from lazyneuron.hf import LazyConfig
from tests.generate.models import BUILD, save
from tests.generate.test_load import IDS, by_transformers, logits, same
from tests.kernels import needs_kernels

pytestmark = needs_kernels
CLASSES = {"t5": AutoModelForSeq2SeqLM}


def load(folder: Path, name: str, **config: object) -> nn.Module:
    kind = CLASSES.get(name, AutoModelForCausalLM)
    return kind.from_pretrained(folder, **({"quantization_config": LazyConfig(**config)} if config else {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BUILD)
def test_every_byte_is_that_of_our_own_loading(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    save(tmp_path, name, dtype=dtype)
    wanted, theirs = load_quantised(tmp_path, weights="int4", rest="int8", group=64)
    got = load(tmp_path, name, weights="int4", rest="int8", group=64)
    same(got, wanted)
    assert torch.equal(logits(got), logits(wanted)) and not got.training
    (receipt,) = lazy.receipts(got)
    assert (receipt.verb, receipt.config, receipt.changes) == (theirs.verb, theirs.config, theirs.changes)
    assert all(block.last == "quantised" for block in lazy.status(got).blocks)
    with pytest.raises(ConfigError, match="were never kept"):
        lazy.restore_(got, receipt)


@pytest.mark.parametrize("name", BUILD)
def test_saved_and_loaded_again_bitwise_and_without_quantising(name: str, tmp_path: Path, monkeypatch) -> None:
    save(tmp_path / "original", name)
    model = load(tmp_path / "original", name, weights="int4", rest="int8")
    model.save_pretrained(tmp_path / "one", max_shard_size="100KB")
    assert len(list((tmp_path / "one").glob("*.safetensors"))) > 2
    monkeypatch.setattr("lazyneuron.accelerate.quantised.modules.quantise_rows", None)
    monkeypatch.setattr("lazyneuron.accelerate.quantised.modules.quantise_columns", None)
    again = load(tmp_path / "one", name)
    same(again, model)
    assert torch.equal(logits(again), logits(model))
    assert all(block.last == "quantised" for block in lazy.status(again).blocks)
    assert lazy.receipts(again) == lazy.receipts(model)
    again.save_pretrained(tmp_path / "two")
    same(load(tmp_path / "two", name), model)


@pytest.mark.parametrize("name", BUILD)
def test_it_generates_what_our_own_loading_generates(name: str, tmp_path: Path) -> None:
    save(tmp_path, name)
    wanted, _ = load_quantised(tmp_path, weights="int8", rest="int8")
    options = {"do_sample": False, "max_new_tokens": 6}
    got = load(tmp_path, name, weights="int8", rest="int8").generate(IDS[:1], **options)
    assert torch.equal(got, wanted.generate(IDS[:1], **options))


@pytest.mark.parametrize(("weights", "rest"), [("int8", "keep"), ("keep", "int8"), ("keep", "keep")])
def test_what_is_kept_is_what_was_stored(weights: str, rest: str, tmp_path: Path) -> None:
    save(tmp_path / "original", "opt")
    wanted = by_transformers(tmp_path / "original", "opt")
    lazy.accelerate_(wanted, weights=weights, rest=rest)
    got = load(tmp_path / "original", "opt", weights=weights, rest=rest)
    same(got, wanted)
    got.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved", "opt")
    same(again, wanted)
    blocks = lazy.status(again).blocks
    assert len(blocks) == 2 and len(lazy.receipts(again)) == len(lazy.receipts(wanted))


def encoder(folder: Path, **others: object) -> tuple[nn.Module, torch.Tensor]:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(3)
    model = BertModel(BertConfig(**sizes, vocab_size=99, hidden_act="relu", **others)).eval()
    model.save_pretrained(folder)
    return model, torch.arange(12).reshape(2, 6)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_encoders(weights: str, tmp_path: Path) -> None:
    wanted, ids = encoder(tmp_path)
    original = copy.deepcopy(wanted)
    lazy.accelerate_(wanted, weights=weights, rest="int8")
    got = AutoModel.from_pretrained(tmp_path, quantization_config=LazyConfig(weights=weights, rest="int8"))
    same(got, wanted)
    with torch.no_grad():
        y = got(ids).last_hidden_state
        assert torch.equal(y, wanted(ids).last_hidden_state)
        error = float((y - original(ids).last_hidden_state).norm() / y.norm())
    assert 1e-4 < error < 0.1  # a step is about 1/127 of the largest weight of a row, or 1/7 of a group's
    short = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False, quantization_config=LazyConfig())
    assert short.pooler is None and isinstance(short.encoder.layer[1].output.dense, Quantised)
    assert type(short.encoder.layer[1].attention.output.dense) is nn.Linear


def test_a_layer_that_no_file_holds_is_made_by_transformers_and_then_quantised(tmp_path: Path, capfd) -> None:
    encoder(tmp_path)
    kind = AutoModelForSequenceClassification
    model = kind.from_pretrained(tmp_path, num_labels=32, quantization_config=LazyConfig(rest="int8"))
    assert isinstance(model.classifier, Quantised)
    assert 0.005 < float(model.classifier.dequantised().std()) < 0.05  # BERT's initializer_range is 0.02
    model.save_pretrained(tmp_path / "saved")
    same(kind.from_pretrained(tmp_path / "saved"), model)


def test_the_base_is_loaded_from_the_whole_and_the_whole_from_the_base(tmp_path: Path) -> None:
    save(tmp_path / "original", "llama")
    whole = load(tmp_path / "original", "llama", weights="int8", rest="int8")
    whole.save_pretrained(tmp_path / "whole")
    base = AutoModel.from_pretrained(tmp_path / "whole")
    same(base, whole.model)
    with torch.no_grad():
        assert torch.equal(base(IDS).last_hidden_state, whole.model(IDS).last_hidden_state)
    assert all(block.last == "quantised" for block in lazy.status(base).blocks)
    encoder(tmp_path / "encoder")
    config = LazyConfig(weights="int8", rest="keep")
    bert = AutoModel.from_pretrained(tmp_path / "encoder", quantization_config=config)
    bert.save_pretrained(tmp_path / "bert")
    headed = AutoModelForSequenceClassification.from_pretrained(tmp_path / "bert", num_labels=3)
    same(headed.bert, bert)
    facts = json.loads((tmp_path / "bert" / "config.json").read_text())
    for layer in facts["quantization_config"]["receipt"]["config"]["layers"]:
        layer["name"] = "elsewhere." + layer["name"]
    (tmp_path / "bert" / "config.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=r"no layer such as elsewhere\.encoder"):
        AutoModel.from_pretrained(tmp_path / "bert")


def test_the_command_line_reads_what_transformers_saved(tmp_path: Path) -> None:
    encoder(tmp_path / "encoder")
    config = LazyConfig(weights="int8", rest="int8")
    bert = AutoModel.from_pretrained(tmp_path / "encoder", quantization_config=config)
    bert.save_pretrained(tmp_path / "saved")
    same(load_model(str(tmp_path / "saved")).model, bert)


def test_copies(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    model = load(tmp_path, "llama", weights="int8", rest="int8")
    assert torch.equal(logits(copy.deepcopy(model)), logits(model))
    lazy.save(model, tmp_path / "ours")
    same(lazy.from_pretrained(tmp_path / "ours"), model)


def test_the_config_is_saved_and_shown(tmp_path: Path) -> None:
    save(tmp_path / "original", "opt")
    load(tmp_path / "original", "opt", weights="int4", rest="int8", group=64).save_pretrained(tmp_path / "saved")
    facts = json.loads((tmp_path / "saved" / "config.json").read_text())["quantization_config"]
    assert [facts[key] for key in ("quant_method", "weights", "rest", "group")] == ["lazyneuron", "int4", "int8", 64]
    assert len(facts["receipt"]["config"]["layers"]) == 13  # six in each of two layers, and the head
    assert "receipt" not in repr(LazyConfig(**facts)) and "int4" in repr(LazyConfig(**facts))
    config = AutoConfig.from_pretrained(tmp_path / "saved")
    assert config.quantization_config["weights"] == "int4"


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    save(tmp_path / "original", "llama")
    for config, message in (
        ({"weights": "int3"}, "got 'int3'"),
        ({"rest": "fp8"}, "got 'fp8'"),
        ({"weights": "int4", "group": 48}, "got 48"),
        ({"bits": 8}, r"takes weights, rest and group, got \['bits'\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            LazyConfig(**config)
    with pytest.raises(ConfigError, match="runs models on the CPU, got device_map="):
        AutoModelForCausalLM.from_pretrained(tmp_path / "original", quantization_config=LazyConfig(), device_map="cuda")
    load(tmp_path / "original", "llama", weights="int8").save_pretrained(tmp_path / "saved")
    with pytest.raises(ConfigError, match="quantised as float32, got dtype=bfloat16"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"import lazyneuron\.hf"):
        load_quantised(tmp_path / "saved")


def test_weights_that_no_format_keeps(tmp_path: Path) -> None:
    model = save(tmp_path, "llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = torch.nan
    model.save_pretrained(tmp_path / "nan")
    with pytest.raises(AssumptionError, match=r"layers.1.mlp.up_proj holds NaN or infinity"):
        load(tmp_path / "nan", "llama", weights="int4")
    save(tmp_path / "odd", "llama", intermediate_size=160, hidden_size=96)
    with pytest.raises(ShapeError, match="groups of 64 do not divide"):
        load(tmp_path / "odd", "llama", weights="int4", group=64)


def test_a_folder_without_all_its_bytes(tmp_path: Path) -> None:
    save(tmp_path / "original", "llama")
    load(tmp_path / "original", "llama", weights="int8").save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "model.safetensors"
    tensors = load_file(path)
    lost = "model.layers.1.mlp.up_proj.scale"
    save_file({key: value for key, value in tensors.items() if key != lost}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{lost} of this LlamaForCausalLM is not in its files"):
        load(tmp_path / "saved", "llama")
    facts = json.loads((tmp_path / "saved" / "config.json").read_text())
    del facts["quantization_config"]["receipt"]
    (tmp_path / "saved" / "config.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="has no receipt"):
        load(tmp_path / "saved", "llama")


def test_layers_are_quantised_while_they_are_read(tmp_path: Path, monkeypatch) -> None:
    """No weight that is quantised waits for the others: the interface of transformers 5 gives each as it comes."""
    save(tmp_path, "llama")
    waiting = []
    from lazyneuron.hf import loading

    whole = loading.Loading.finish

    def finish(self: loading.Loading, model: nn.Module) -> lazy.Receipt:
        linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        waiting.extend(n for n, m in linears.items() if m.weight.untyped_storage().nbytes() > 8)
        return whole(self, model)

    monkeypatch.setattr(loading.Loading, "finish", finish)
    load(tmp_path, "llama", weights="int8", rest="int8")
    assert waiting == []


WITHOUT = """
import builtins, sys
real = builtins.__import__
def refuse(name, *args, **kwargs):
    if name.startswith("transformers"):
        raise ImportError(name)
    return real(name, *args, **kwargs)
builtins.__import__ = refuse
try:
    import lazyneuron.hf
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_transformers() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("ImplUnavailable lazyneuron.hf needs transformers")
