"""What runs around quantised layers: norms and attention as operators, with the model's own numbers."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import lazyneuron as lazy
from lazyneuron.accelerate.quantised import attention, execution, modules
from lazyneuron.accelerate.quantised.decoder import LayerForward
from lazyneuron.accelerate.quantised.norms import NormForward, find_norms, fuse_norms_
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.core.undo import transaction
from tests.kernels import needs_kernels

pytestmark = needs_kernels
IDS = torch.randint(5, 96, (1, 9), generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = SIZES | {"num_key_value_heads": 2, "vocab_size": 96, "hidden_act": "relu"}
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


class Centred(nn.Module):
    """Looks like an RMS norm and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(32))
        self.eps = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_are_told_by_what_they_do(dtype: torch.dtype) -> None:
    found = find_norms(llama().to(dtype))
    assert set(found) == {f"model.layers.{k}.{n}_layernorm" for k in (0, 1) for n in ("input", "post_attention")} | {
        "model.norm"
    }
    assert all(rule["eps"] == 1e-6 and rule["offset"] == 0 for rule in found.values())
    assert all(rule["rounds_first"] for rule in found.values()) or dtype == torch.float32
    gemma = Gemma2ForCausalLM(Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=16, vocab_size=96)).to(dtype)
    assert {rule["offset"] for rule in find_norms(gemma).values()} == {1.0} and len(find_norms(gemma)) == 9
    t5 = T5ForConditionalGeneration(T5Config(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, vocab_size=96))
    assert len(find_norms(t5.to(dtype))) == 12
    others = nn.ModuleList(
        [Centred(), nn.LayerNorm(32), nn.LayerNorm(32, bias=False), nn.BatchNorm1d(32), nn.PReLU(32)]
    )
    assert find_norms(others.to(dtype)) == {}
    assert list(find_norms(nn.Sequential(nn.RMSNorm(32, eps=1e-4)).to(dtype))) == ["0"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_keeps_its_numbers_and_its_gradients(dtype: torch.dtype) -> None:
    model = llama().to(dtype)
    norm = model.model.norm
    with torch.no_grad():
        norm.weight.copy_(torch.randn(64))
    x = torch.randn(2, 5, 64, dtype=dtype)
    with torch.no_grad():
        wanted = norm(x)
    with transaction(model, "norms") as change:
        fuse_norms_(change, model, find_norms(model))
    assert isinstance(norm.forward, NormForward)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), wanted, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=0)
        norm.weight.mul_(2)  # read at each call
        torch.testing.assert_close(norm(x), 2 * wanted, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=0)
    norm(x.requires_grad_()).float().sum().backward()
    assert norm.weight.grad is not None and x.grad is not None


def test_tokens_stay_and_everything_comes_back() -> None:
    model = llama()
    with torch.no_grad():
        before = model(IDS).logits
    receipt = lazy.accelerate_(model, rest="int8")
    assert model.config._attn_implementation == attention.NAME
    assert len([m for m in model.modules() if isinstance(m.__dict__.get("forward"), NormForward)]) == 5
    tokens = model.generate(IDS, max_new_tokens=24, do_sample=False)
    reordered = copy.deepcopy(model)
    reordered.config._attn_implementation = "sdpa"
    for module in reordered.modules():
        if isinstance(module.__dict__.get("forward"), NormForward | LayerForward):
            del module.forward
    assert torch.equal(tokens, reordered.generate(IDS, max_new_tokens=24, do_sample=False))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(tokens, other.generate(IDS, max_new_tokens=24, do_sample=False))
    lazy.restore_(model, receipt)
    assert model.config._attn_implementation == "sdpa" and not hasattr(model, "_lazyneuron_attention")
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, before)


def test_the_operator_attends_where_nothing_is_masked_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    lazy.accelerate_(model, rest="int8")
    for layer in model.model.layers:
        del layer.forward  # which would attend inside an operator of its own
    asked: list[bool] = []
    real = attention._fits
    monkeypatch.setattr(attention, "_fits", lambda *args: asked.append(real(*args)) or asked[-1])
    model.generate(IDS, max_new_tokens=4, do_sample=False)
    assert asked == [False] * 2 + [True] * 6  # the prompt, then three tokens, in two layers
    asked.clear()
    padded = torch.ones_like(IDS)
    padded[:, :3] = 0
    model.generate(IDS, attention_mask=padded, max_new_tokens=4, do_sample=False)
    assert asked == []


def test_eager_attention_is_left_alone() -> None:
    model = llama()
    model.set_attn_implementation("eager")
    lazy.accelerate_(model, rest="int8")
    assert model.config._attn_implementation == "eager"


def test_a_saved_model_has_them_again(tmp_path) -> None:
    torch.manual_seed(0)
    model = OPTForCausalLM(
        OPTConfig(
            hidden_size=64,
            ffn_dim=128,
            num_hidden_layers=1,
            num_attention_heads=4,
            word_embed_proj_dim=64,
            vocab_size=96,
        )
    ).eval()
    for made in (model, llama()):
        lazy.accelerate_(made, weights="int8", rest="int8")
        lazy.save(made, tmp_path / type(made).__name__)
        again = lazy.from_pretrained(tmp_path / type(made).__name__)
        assert again.config._attn_implementation == attention.NAME
        wanted = made.generate(IDS, max_new_tokens=12, do_sample=False)
        assert torch.equal(again.generate(IDS, max_new_tokens=12, do_sample=False), wanted)


def test_a_decoding_step_compiles_as_one_graph() -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        step = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
        wanted = model(torch.cat([IDS, IDS[:, :2]], 1)).logits[:, -2:]
        for k in range(2):
            got = step(IDS[:, k : k + 1], past_key_values=cache, use_cache=True).logits[:, 0]
            torch.testing.assert_close(got, wanted[:, k], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("part", ["all", "gate_proj", "down_proj"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantised_layers_that_move_say_where_they_are(weights: str, part: str) -> None:
    mlp = llama().model.layers[0].mlp.requires_grad_(False)
    lazy.accelerate_(mlp, weights=weights)
    x = torch.zeros(1, 64)
    mlp(x)
    (mlp if part == "all" else getattr(mlp, part)).to("meta")
    mlp(x.to("meta") if part == "all" else x)
    found = lazy.status(mlp).blocks[0].last
    if part == "down_proj":
        assert found == "Its quantised layers are on several devices, cpu and meta; move the block to one."
    else:
        assert "run on CPUs and CUDA devices, and these are on meta; move" in found


def test_quantised_layers_on_another_kind_of_device_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on "mps", for which torch has no message of one sentence."""
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)).eval()
    lazy.accelerate_(model, weights="int8")
    monkeypatch.setattr(modules, "DEVICES", ("cuda",))
    monkeypatch.setattr(execution, "DEVICES", ("cuda",))
    monkeypatch.setattr(execution.QuantisedExecution, "_is_on_cpu", lambda self: False)
    model.to("cpu")
    with pytest.raises(ImplUnavailable, match="run on CPUs and CUDA devices, and these are on cpu; move the model"):
        model(torch.zeros(1, 64))
