"""Blocks with adapters: what is read of their weights is what they compute with."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import ConfigError
from lazyneuron.induce import ZerothBias

peft = pytest.importorskip("peft", reason="PEFT is not installed")


def adapted(**more: object) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)).double().eval()
    peft.inject_adapter_in_model(peft.LoraConfig(r=3, lora_alpha=2, target_modules=["0", "2"], **more), model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model


def test_blocks_with_adapters_compute_what_the_model_does() -> None:
    model, x = adapted(), torch.randn(7, 6).double()
    (block,) = find_blocks(model)
    assert block.up.adapted and not torch.allclose(block.up.weight, block.up.effective_weight)
    torch.testing.assert_close(block.forward(x), model(x))
    torch.testing.assert_close(block.up.effective_weight @ x[0] + block.up.bias, model[0](x[0]))
    bias = ZerothBias(4, 6).double()
    nn.init.normal_(bias.bias)
    torch.testing.assert_close(bias.fold(model[0]), model[0](bias.bias))
    merged = copy.deepcopy(model)
    merged[0].merge()
    (other,) = find_blocks(merged)
    torch.testing.assert_close(other.up.effective_weight, block.up.effective_weight)
    model[0].enable_adapters(False)
    torch.testing.assert_close(block.up.effective_weight, block.up.weight, rtol=0, atol=0)


def test_an_adapter_that_does_more_than_add_is_refused() -> None:
    for model in (adapted(use_dora=True), adapted(lora_bias=True)):
        (block,) = find_blocks(model)
        with pytest.raises(ConfigError, match="does more than add to its weight; merge it first"):
            _ = block.up.effective_weight
