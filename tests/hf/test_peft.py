"""The order of operations with PEFT's adapters, as the page states it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.generate.load import load_quantised
from tests.generate.models import BUILD, save
from tests.generate.test_load import IDS, logits, same
from tests.kernels import needs_kernels

peft = pytest.importorskip("peft", reason="PEFT is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT's
PARTS = ["gate_proj", "up_proj", "down_proj", "q_proj", "v_proj"]


def sparse_llama() -> nn.Module:
    torch.manual_seed(0)
    model = BUILD["llama"](hidden_act="silu").eval()
    lazy.sparsify_(model, lazy.Relufy())
    return model


def with_adapter(model: nn.Module, parts: list[str] = PARTS) -> nn.Module:
    torch.manual_seed(1)
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=parts, r=4, lora_alpha=8))


def trained_(model: nn.Module, steps: int = 5) -> list[float]:
    model.train()
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(wanted, lr=0.01)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def close(one: Tensor, other: Tensor, limit: float = 1e-5) -> bool:
    return float((one - other).norm() / other.norm()) < limit


def test_sparsify_adapt_merge_accelerate_save(tmp_path: Path) -> None:
    base = sparse_llama()
    before = logits(base)
    adapted = with_adapter(base)
    losses = trained_(adapted)
    assert losses[-1] < losses[0] - 0.01
    wanted = logits(adapted)
    assert not close(wanted, before, 1e-2)
    merged = adapted.merge_and_unload()
    assert merged is base and close(logits(merged), wanted)
    lazy.accelerate_(merged, impl="gather")
    assert close(logits(merged), wanted)
    assert {block.last for block in lazy.status(merged).blocks} == {"gather"}
    lazy.save(merged, tmp_path / "saved")
    again = lazy.from_pretrained(tmp_path / "saved")
    assert [receipt.verb for receipt in lazy.receipts(again)] == ["sparsify_", "accelerate_"]
    assert close(logits(again), wanted)


@needs_kernels
def test_the_merged_model_is_quantised_when_it_is_loaded(tmp_path: Path) -> None:
    adapted = with_adapter(sparse_llama())
    trained_(adapted)
    merged = adapted.merge_and_unload()
    lazy.save(merged, tmp_path / "merged")
    lazy.accelerate_(merged, weights="int8", rest="int8")
    same(load_quantised(tmp_path / "merged", weights="int8", rest="int8")[0], merged)


def test_a_recipe_finds_blocks_through_adapters_and_its_parts_are_trained_beside_them() -> None:
    adapted = with_adapter(sparse_llama())
    receipt = lazy.sparsify_(adapted, lazy.DoublyBiased(jsrelu=False, norm_floor=None, max_len=64))
    assert {change.action for change in receipt.changes} == {"replaced"}
    biases = [p for n, p in adapted.named_parameters() if "zeroth_bias" in n]
    assert len(biases) == len(receipt.changes)
    losses = trained_(adapted)
    assert losses[-1] < losses[0] - 0.01 and all(bool(p.abs().sum() > 0) for p in biases)


def test_an_adapter_in_the_way_is_named(tmp_path: Path) -> None:
    adapted = with_adapter(sparse_llama())
    before = copy.deepcopy(adapted.state_dict())
    with pytest.raises(NoBlocksError, match="carries an adapter; merge it into the weight first"):
        lazy.accelerate_(adapted)
    assert all(torch.equal(value, before[key]) for key, value in adapted.state_dict().items())
    on_attention = with_adapter(sparse_llama(), ["q_proj", "v_proj"])
    wanted = logits(on_attention)
    lazy.accelerate_(on_attention, impl="gather")  # its blocks carry none
    assert close(logits(on_attention), wanted)
    assert {block.last for block in lazy.status(on_attention).blocks} == {"gather"}


def test_an_adapter_after_the_acceleration_is_noticed_and_runs() -> None:
    model = sparse_llama()
    lazy.accelerate_(model, impl="gather")
    before = logits(model)
    adapted = with_adapter(model)
    losses = trained_(adapted)
    assert losses[-1] < losses[0] - 0.01
    got = logits(adapted)
    assert not close(got, before, 1e-2)
    assert "gather" not in {block.last for block in lazy.status(model).blocks}
    adapted.merge_and_unload()
    assert close(logits(model), got)


@needs_kernels
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_no_adapter_goes_onto_quantised_layers(weights: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from lazyneuron.hf import LazyConfig

    save(tmp_path, "llama")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=LazyConfig(weights=weights))
    with pytest.raises(ValueError, match=r"Target module QuantisedLinear.* is not supported"):
        with_adapter(model, ["gate_proj"])
    before = logits(model)
    adapted = with_adapter(model, ["q_proj", "v_proj"])  # layers that keep their weights take one, to run it
    assert torch.equal(logits(adapted), before)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(2))
    assert not close(logits(adapted), before, 1e-2)
    assert not model.hf_quantizer.is_trainable
