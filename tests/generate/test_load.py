"""load_quantised: the bytes of accelerate_ on the model that transformers loads, without ever holding that model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.modules import Quantised
from lazyneuron.core.errors import AssumptionError, CheckpointError, ConfigError, DataError, ShapeError
from lazyneuron.generate.load import load_quantised
from tests.generate.models import BUILD, save
from tests.kernels import needs_kernels

pytestmark = [needs_kernels, pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*")]
IDS = torch.randint(5, 300, (2, 9), generator=torch.Generator().manual_seed(0))


def by_transformers(folder: Path, name: str) -> nn.Module:
    auto = AutoModelForSeq2SeqLM if name == "t5" else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype="auto").eval()


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_buffers(remove_duplicate=False)), **model.state_dict()}


def same(one: nn.Module, other: nn.Module) -> None:
    a, b = tensors(one), tensors(other)
    assert list(one.state_dict()) == list(other.state_dict()) and a.keys() == b.keys()
    assert [name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])] == []


def logits(model: nn.Module) -> Tensor:
    more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=IDS, **more).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", BUILD)
def test_every_byte_is_that_of_the_model_quantised_in_memory(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    save(tmp_path, name, dtype=dtype)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    wanted = by_transformers(tmp_path, name)
    theirs = lazy.accelerate_(wanted, weights="int4", rest="int8", group=64)
    got, ours = load_quantised(tmp_path, weights="int4", rest="int8", group=64)
    same(got, wanted)
    assert (ours.verb, ours.config, ours.changes) == (theirs.verb, theirs.config, theirs.changes)
    assert torch.equal(logits(got), logits(wanted)) and not got.training
    assert all(block.last == "quantised" for block in lazy.status(got).blocks)
    assert [p.requires_grad for p in got.parameters()] == [p.requires_grad for p in wanted.parameters()]


@pytest.mark.parametrize("name", BUILD)
def test_what_is_kept_is_what_was_stored(name: str, tmp_path: Path) -> None:
    save(tmp_path, name)
    for weights, rest in (("int8", "keep"), ("keep", "int8"), ("keep", "keep")):
        wanted = by_transformers(tmp_path, name)
        lazy.accelerate_(wanted, weights=weights, rest=rest)
        got, receipt = load_quantised(tmp_path, weights=weights, rest=rest)
        same(got, wanted)
        assert receipt is not None and receipt.verb == ("quantise_" if weights == "int8" else "accelerate_")


def test_a_tied_head_becomes_a_copy_and_the_receipt_says_so(tmp_path: Path) -> None:
    save(tmp_path, "opt")
    got, receipt = load_quantised(tmp_path, weights="int8", rest="int4")
    assert isinstance(got.lm_head, Quantised) and type(got.model.decoder.embed_tokens.weight) is nn.Parameter
    assert receipt.notes == (
        "lm_head is tied to model.decoder.embed_tokens.weight, and became a quantised copy of it.",
    )
    save(tmp_path / "untied", "opt", tie_word_embeddings=False)
    _, receipt = load_quantised(tmp_path / "untied", weights="int8", rest="int4")
    assert receipt.notes == ()


def test_a_tie_that_the_files_contradict_is_cut(tmp_path: Path) -> None:
    save(tmp_path, "opt", tie_word_embeddings=False)
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**facts, "tie_word_embeddings": True}))
    wanted = by_transformers(tmp_path, "opt")
    lazy.accelerate_(wanted, weights="int8", rest="int8")
    same(load_quantised(tmp_path, weights="int8", rest="int8")[0], wanted)


def test_a_folder_of_the_base_model_and_one_file(tmp_path: Path) -> None:
    model = save(tmp_path, "gpt2", shard="1GB")
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    model.transformer.save_pretrained(tmp_path / "base")  # names without the prefix
    wanted, _ = load_quantised(tmp_path, weights="int8", rest="int8")
    same(load_quantised(tmp_path / "base", weights="int8", rest="int8")[0], wanted)


MIXTURES = {
    "mixtral": (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 12}),
    "qwen2_moe": (
        Qwen2MoeConfig, Qwen2MoeForCausalLM, {"num_experts": 12, "shared_expert_intermediate_size": 64},
    ),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, {"num_experts": 12, "head_dim": 16}),
}  # fmt: skip


def mixture(
    folder: Path, name: str, *, dtype: torch.dtype = torch.float32, shard: str = "100KB", **others: int
) -> None:
    """A model of experts; the files hold each expert's matrices, the model all experts in one tensor."""
    torch.manual_seed(0)
    config, kind, own = MIXTURES[name]
    sizes = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 384} | own | others
    kind(config(**sizes)).to(dtype).save_pretrained(folder, max_shard_size=shard)


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_are_read_piece_by_piece(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture(tmp_path, name)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    wanted = by_transformers(tmp_path, name)
    lazy.accelerate_(wanted, weights="keep", rest="int8")
    monkeypatch.setattr("lazyneuron.generate.load.load_whole", None)
    got, receipt = load_quantised(tmp_path, weights="keep", rest="int8")
    same(got, wanted)
    assert torch.equal(logits(got), logits(wanted))
    assert any("12 experts in batched weights" in change.reason for change in receipt.changes)


def test_an_expert_that_lacks_a_matrix_is_said(tmp_path: Path) -> None:
    mixture(tmp_path, "mixtral", shard="1GB")
    file = tmp_path / "model.safetensors"
    stored = load_file(file)
    del stored["model.layers.1.block_sparse_moe.experts.3.w3.weight"]
    save_file(stored, file, metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"layers.1.mlp.experts.gate_up_proj .* 12 of .*w1.weight, 11 of .*w3.weight"
    ):
        load_quantised(tmp_path, rest="int8")


def test_weights_that_transformers_converts_otherwise_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture(tmp_path, "mixtral")
    wanted = by_transformers(tmp_path, "mixtral")
    lazy.accelerate_(wanted, weights="keep", rest="int8")
    monkeypatch.setattr("lazyneuron.generate.places._stacks", lambda step: False)
    got, receipt = load_quantised(tmp_path, weights="keep", rest="int8")
    same(got, wanted)
    assert any("read whole" in note for note in receipt.notes)


@pytest.mark.parametrize("name", BUILD)
def test_saved_and_loaded_again_bitwise_and_without_quantising(name: str, tmp_path: Path, monkeypatch) -> None:
    save(tmp_path / "original", name)
    model, _ = load_quantised(tmp_path / "original", weights="int4", rest="int8")
    lazy.save(model, tmp_path / "saved")
    monkeypatch.setattr("lazyneuron.accelerate.quantised.modules.quantise_rows", None)
    monkeypatch.setattr("lazyneuron.accelerate.quantised.modules.quantise_columns", None)
    for again in (lazy.from_pretrained(tmp_path / "saved"), load_quantised(tmp_path / "saved")[0]):
        same(again, model)
        assert [part.stride() for part in again.buffers()] == [part.stride() for part in model.buffers()]
        assert torch.equal(logits(again), logits(model))
    with pytest.raises(ConfigError, match="saved with weights='int4', got 'int8'"):
        load_quantised(tmp_path / "saved", weights="int8")
    with pytest.raises(ConfigError, match="saved with group=32, got 64"):
        load_quantised(tmp_path / "saved", group=64)


def test_a_model_changed_by_a_recipe_is_quantised_from_its_folder(tmp_path: Path) -> None:
    model = save(tmp_path / "original", "llama", hidden_act="silu")
    lazy.sparsify_(model, lazy.DoublyBiased())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.01)
    lazy.save(model, tmp_path / "sparse")
    wanted = lazy.from_pretrained(tmp_path / "sparse")
    lazy.accelerate_(wanted, weights="int8", rest="int4")
    got, _ = load_quantised(tmp_path / "sparse", weights="int8", rest="int4")
    same(got, wanted)
    assert torch.equal(logits(got), logits(wanted))


def test_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    model, receipt = load_quantised(tmp_path, weights="int8", rest="int8")
    before = logits(model)
    with pytest.raises(ConfigError, match="were never kept"):
        lazy.restore_(model, receipt)
    assert torch.equal(logits(model), before) and lazy.receipts(model) == (receipt,)


def test_shares_are_measured_through_the_quantised_model(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    model, receipt = load_quantised(tmp_path, [IDS], weights="int8", rest="int8")
    assert lazy.receipts(model) == (receipt,)
    shares = {change.block: change.details["shares"]["quantised"]["fired"] for change in receipt.changes}
    seen: dict[str, float] = {}
    for name, block in ((f"model.layers.{k}.mlp", model.model.layers[k].mlp) for k in range(2)):

        def look(module: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            gate = module.gate_proj.dequantised()
            seen[name] = float((torch.relu(args[0] @ gate.T) > 0).float().mean())

        block.register_forward_hook(look)
    logits(model)
    assert seen == pytest.approx(shares, abs=2e-3)
    with pytest.raises(DataError, match="wrap it in a list"):
        load_quantised(tmp_path, IDS)


def wrong(tmp_path: Path, **changes: object) -> Path:
    save(tmp_path, "llama")
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**facts, **changes}))
    return tmp_path


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    for k, (changes, message) in enumerate(
        (
            ({"model_type": "none"}, "Cannot read the config"),
            ({"model_type": "vit", "architectures": ["ViTModel"]}, "does not generate text"),
            ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised by another program"),
            ({"num_hidden_layers": 3}, "are not in"),
            ({"intermediate_size": 512}, "the config says"),
        )
    ):
        with pytest.raises(CheckpointError, match=message):
            load_quantised(wrong(tmp_path / str(k), **changes))
    with pytest.raises(CheckpointError, match="no folder"):
        load_quantised(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="got 'int3'"):
        load_quantised(tmp_path / "0", weights="int3")


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        save(tmp_path / name, "llama")
        return tmp_path / name

    shard = sorted(damaged("truncated").glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-5])
    (damaged("gone") / shard.name).unlink()
    (damaged("index") / "model.safetensors.index.json").write_text("{")
    outside = damaged("outside") / "model.safetensors.index.json"
    outside.write_text(outside.read_text().replace(shard.name, f"../gone/{shard.name}"))
    for path in damaged("pickled").glob("model*"):
        path.unlink()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    for path in damaged("empty").glob("model*"):
        path.unlink()
    for name, message in (
        ("truncated", f"{shard.name} is no whole safetensors file"),
        ("gone", f"{shard.name} is no whole safetensors file"),
        ("index", "no index of shards"),
        ("outside", "no file of this folder"),
        ("pickled", "only pickled weights"),
        ("empty", "has no weights"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_quantised(tmp_path / name)


def test_weights_that_no_format_keeps(tmp_path: Path) -> None:
    model = save(tmp_path, "llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = torch.nan
    model.save_pretrained(tmp_path / "nan")
    with pytest.raises(AssumptionError, match=r"layers.1.mlp.up_proj holds NaN or infinity"):
        load_quantised(tmp_path / "nan", weights="int4", rest="keep")
    save(tmp_path / "odd", "llama", intermediate_size=160, hidden_size=96)
    with pytest.raises(ShapeError, match="groups of 64 do not divide"):
        load_quantised(tmp_path / "odd", weights="int4", group=64)


PEAK = """
import sys, torch
from lazyneuron.generate.load import load_quantised
import lazyneuron as lazy

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

small, large, saved, form = sys.argv[1:]
load_quantised(small, weights=form, rest=form)
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
before = status("VmRSS")
model, _ = load_quantised(large) if saved == "yes" else load_quantised(large, weights=form, rest=form)
stored = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
print((status("VmHWM") - before) / stored)
if saved != "yes":
    lazy.save(model, saved)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
@pytest.mark.parametrize("form", ["int8", "int4"])
def test_the_peak_of_loading_is_little_more_than_the_quantised_model(form: str, tmp_path: Path) -> None:
    save(tmp_path / "small", "llama")
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16}
    save(tmp_path / "large", "llama", dtype=torch.bfloat16, shard="90MB", **sizes)
    assert len(list((tmp_path / "large").glob("*.safetensors"))) >= 3

    def ratio(*arguments: object) -> float:
        command = [sys.executable, "-c", PEAK, *map(str, arguments), form]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert ratio(tmp_path / "small", tmp_path / "large", tmp_path / "saved") <= 1.3
    assert ratio(tmp_path / "small", tmp_path / "saved", "yes") <= 1.3


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_the_peak_of_loading_experts_is_little_more_than_the_model(tmp_path: Path) -> None:
    mixture(tmp_path / "small", "mixtral")
    sizes = {"hidden_size": 768, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 12}
    mixture(tmp_path / "large", "mixtral", dtype=torch.bfloat16, shard="90MB", num_local_experts=8, **sizes)
    command = [
        sys.executable,
        "-c",
        PEAK,
        *map(str, (tmp_path / "small", tmp_path / "large", tmp_path / "saved")),
        "int8",
    ]
    assert float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) <= 1.3
