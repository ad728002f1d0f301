"""accelerate_ with quantised weights: the same numbers as the dense evaluation, taken back bitwise, saved as bytes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.execution import accelerated_blocks, every_neuron
from lazyneuron.accelerate.quantised.modules import Quantised, QuantisedDown, QuantisedLinear
from lazyneuron.core.errors import ConfigError, ShapeError
from tests.kernels import needs_kernels

pytestmark = needs_kernels
FORMATS = ["int8", "int4"]


def llama(hidden_act: str = "relu") -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=96, hidden_act=hidden_act)).eval()


def opt() -> OPTForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    return OPTForCausalLM(
        OPTConfig(
            **sizes, word_embed_proj_dim=128, vocab_size=96, max_position_embeddings=64, tie_word_embeddings=False
        )
    ).eval()


MODELS = {"llama": llama, "opt": opt}
IDS = torch.randint(5, 96, (2, 9), generator=torch.Generator().manual_seed(0))


def logits(model: nn.Module, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model(ids).logits


def quantised_layers(model: nn.Module) -> dict[str, Quantised]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantised)}


def dequantised(model: nn.Module) -> nn.Module:
    """The same model with float layers that hold what the bytes mean."""
    plain = copy.deepcopy(model)
    lazy.restore_(plain, lazy.receipts(plain)[-1])
    for name, layer in quantised_layers(model).items():
        with torch.no_grad():
            plain.get_submodule(name).weight.copy_(layer.dequantised())
    return plain


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_the_output_is_that_of_the_weights_that_the_bytes_mean(name: str, form: str) -> None:
    model = MODELS[name]()
    original = logits(model)
    receipt = lazy.accelerate_(model, [IDS], weights=form, rest=form)
    got = logits(model)
    torch.testing.assert_close(got, logits(dequantised(model)), rtol=2e-3, atol=2e-3)
    assert not torch.allclose(got, original, rtol=1e-4, atol=1e-4)  # something was quantised
    status = lazy.status(model)
    assert len(status.blocks) == 2 and all(b.last == "quantised" and 0 < b.fired < 1 for b in status.blocks)
    errors = [change.details["output_error"]["rms"] for change in receipt.changes]
    assert all(1e-4 < error < (0.03 if form == "int8" else 0.3) for error in errors)
    kinds = [type(layer) for layer in quantised_layers(model).values()]
    assert kinds.count(QuantisedDown) == 2 and kinds.count(QuantisedLinear) > 8
    lazy.restore_(model, receipt)
    assert torch.equal(logits(model), original) and not quantised_layers(model)


@pytest.mark.parametrize("form", FORMATS)
def test_sparse_execution_gives_the_tokens_of_the_layers_run_one_by_one(form: str) -> None:
    model = llama()
    lazy.accelerate_(model, weights=form, rest=form)
    layers = copy.deepcopy(model)
    for block in lazy.status(layers).blocks:
        layers.get_submodule(f"{block.block}.up_proj").register_forward_hook(
            lambda *_: None
        )  # a hook makes the layers run
    options = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(IDS, **options), layers.generate(IDS, **options))
    assert all(b.sparse_calls == 0 and "hooks" in b.last for b in lazy.status(layers).blocks)
    assert all(b.sparse_calls == b.calls > 30 for b in lazy.status(model).blocks)


@pytest.mark.parametrize("form", FORMATS)
def test_bytes_are_saved_and_loaded_bitwise(form: str, tmp_path) -> None:
    model = llama()
    lazy.accelerate_(model, weights=form, rest="int8")
    wanted = logits(model)
    lazy.save(model, tmp_path)
    fresh = llama()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.normal_()
    (receipt,) = lazy.load_(fresh, tmp_path)
    assert torch.equal(logits(fresh), wanted)
    again = lazy.from_pretrained(tmp_path)
    assert torch.equal(logits(again), wanted)
    assert {k: v.stored_bytes for k, v in quantised_layers(again).items()} == {
        k: v.stored_bytes for k, v in quantised_layers(model).items()
    }
    lazy.restore_(fresh, receipt)
    assert not quantised_layers(fresh)


def test_bytes_that_change_are_the_bytes_that_run() -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="keep")
    before = logits(model)
    down = model.model.layers[0].mlp.down_proj
    down.scale.data.mul_(2.0)  # no version counter, no hook
    changed = logits(model)
    assert not torch.equal(before, changed)
    down.scale = down.scale.clone().div_(2.0)
    assert torch.equal(logits(model), before)


def test_the_rest_alone_and_blocks_that_keep_their_weights() -> None:
    model = llama()
    original = logits(model)
    receipt = lazy.accelerate_(model, weights="keep", rest="int8", impl="native")
    assert receipt.verb == "accelerate_" and len(lazy.receipts(model)) == 2
    assert not any("mlp" in name for name in quantised_layers(model)) and "lm_head" in quantised_layers(model)
    torch.testing.assert_close(logits(model), logits(dequantised(model)), rtol=2e-3, atol=2e-3)
    assert all(b.sparse_calls == b.calls > 0 for b in lazy.status(model).blocks)
    lazy.restore_(model, receipt)
    assert torch.equal(logits(model), original) and not lazy.receipts(model)


def test_blocks_that_are_zero_nowhere_are_quantised_and_run_layer_by_layer() -> None:
    model = llama("silu")
    receipt = lazy.accelerate_(model, weights="int4", rest="int4")
    torch.testing.assert_close(logits(model), logits(dequantised(model)), rtol=2e-3, atol=2e-3)
    assert [change.action for change in receipt.changes] == ["dense", "dense"]
    assert "zero nowhere" in receipt.changes[0].reason
    found = lazy.status(model)
    assert found.blocks == () and found.dense == {change.block: change.reason for change in receipt.changes}


def test_bfloat16_models_and_batches_of_any_size() -> None:
    model = llama().to(torch.bfloat16)
    lazy.accelerate_(model, weights="int4", rest="int8")
    whole = logits(model)
    one = torch.cat([logits(model, IDS[k : k + 1]) for k in range(2)])
    torch.testing.assert_close(whole.float(), one.float(), rtol=0.05, atol=0.05)


def test_bad_options_change_nothing() -> None:
    model = llama()
    before = logits(model)
    for options, error, message in (
        ({"weights": "int3"}, ConfigError, "weights is 'keep', 'int8' or 'int4', got 'int3'"),
        ({"rest": "fp8"}, ConfigError, "rest is 'keep', 'int8' or 'int4', got 'fp8'"),
        ({"weights": "int4", "group": 48}, ConfigError, "32, 64, 128 weights, got 48"),
        ({"weights": "int8", "guarantee": "calibrated"}, ConfigError, "no slack to calibrate"),
    ):
        with pytest.raises(error, match=message):
            lazy.accelerate_(model, [IDS], **options)
    sizes = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 1, "num_attention_heads": 4}
    odd = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=96, hidden_act="relu")).eval()
    with pytest.raises(ShapeError, match=r"layers.0.mlp.*groups of 64 do not divide"):
        lazy.accelerate_(odd, weights="int4", group=64)
    assert not quantised_layers(odd) and not quantised_layers(model) and torch.equal(logits(model), before)


def test_weights_that_are_not_finite_are_refused() -> None:
    model = llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.inf
    with pytest.raises(lazy.core.errors.AssumptionError, match=r"layers.1.mlp.up_proj holds NaN or infinity"):
        lazy.accelerate_(model, weights="int8", rest="int8")
    assert not quantised_layers(model)
    receipt = lazy.accelerate_(model, weights="int8")  # the block is none that can be told from its numbers
    assert [(c.action, c.block) for c in receipt.changes][1:] == [("skipped", "model.layers.1.mlp.up_proj")]


def test_a_quantised_copy_and_gradients() -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), logits(model))
    twin.model.layers[0].mlp.gate_proj.scale.zero_()
    assert not torch.equal(logits(twin), logits(model))


def test_a_pickled_model_runs_its_bytes(tmp_path) -> None:
    model = llama()
    lazy.accelerate_(model, weights="int4", rest="int8")
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(logits(again), logits(model)) and lazy.status(again).blocks[0].last == "quantised"
    torch.save(model.state_dict(), tmp_path / "state.pt")  # refuses memory that several types share
    saved = torch.load(tmp_path / "state.pt")
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


def test_compiled_models_run_the_operators() -> None:
    model = llama()
    lazy.accelerate_(model, weights="int4", rest="int8")
    wanted = logits(model)
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=False)
    # compiled norms are the model's own code, whose sums have another order than the operator's
    torch.testing.assert_close(logits(compiled), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("form", "rest"), [("int8", "int8"), ("int4", "keep"), ("keep", "int8")])
def test_every_neuron_can_be_evaluated_for_comparison(form: str, rest: str) -> None:
    model = llama()
    lazy.accelerate_(model, weights=form, rest=rest, impl="native")
    sparse = logits(model)
    before = lazy.status(model).blocks
    with every_neuron(model):
        dense = logits(model)
    inside = lazy.status(model).blocks
    if form == "keep":
        torch.testing.assert_close(dense, sparse, rtol=1e-3, atol=1e-4)
        assert [b.sparse_calls for b in inside] == [b.sparse_calls for b in before]
        assert all(b.fallbacks == {} and b.paths["dense"] == 1 for b in inside)
    else:
        assert torch.equal(dense, sparse)
        pairs = IDS.numel() * 256
        assert all(b.fired == a.fired < 0.9 for a, b in zip(before, inside, strict=True))
        assert all(run.counts_of_every.tolist()[:3] == [pairs, pairs, IDS.numel()] for run in accelerated_blocks(model))
    assert torch.equal(logits(model), sparse)
    assert [b.sparse_calls for b in lazy.status(model).blocks] == [b.sparse_calls + 1 for b in inside]


@pytest.mark.parametrize("form", FORMATS)
def test_the_receipt_says_which_rows_sequences_read_together(form: str) -> None:
    block = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 32)).eval()
    with torch.no_grad():  # neuron i fires for token i mod 8 alone, so n tokens of 8 read n eighths of the rows
        block[0].weight.copy_(torch.eye(8, 32).repeat(32, 1))
        block[0].bias.fill_(-0.5)
    receipt = lazy.accelerate_(block, [torch.eye(8, 32)], weights=form)
    assert receipt.changes[0].details["rows_read_by_sequences"] == {"1": 1 / 8, "2": 2 / 8, "4": 4 / 8, "8": 1.0}
    block = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 32)).eval()
    receipt = lazy.accelerate_(block, [torch.randn(3, 32)], weights=form)
    assert list(receipt.changes[0].details["rows_read_by_sequences"]) == ["1", "2"]  # as far as there are tokens
