"""`torchao.quantize_` with LazyMLPConfig, beside torchao's own config for the other layers."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.modules import Quantised
from lazyneuron.core.errors import ConfigError, NoBlocksError
from tests.kernels import needs_kernels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchao announces deprecations while it is imported
    torchao = pytest.importorskip("torchao", reason="torchao is not installed")
    from torchao.quantization import FqnToConfig, Int8WeightOnlyConfig, quantize_

    from lazyneuron.torchao import LazyMLPConfig, whole_model

pytestmark = [needs_kernels, pytest.mark.filterwarnings("ignore::DeprecationWarning:torchao.*")]
IDS = torch.arange(12).reshape(2, 6)


def encoder() -> nn.Module:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(3)
    return BertModel(BertConfig(**sizes, vocab_size=99, hidden_act="relu")).eval()


def output(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).last_hidden_state


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_the_blocks_are_quantised_as_by_accelerate_(weights: str) -> None:
    model, wanted = encoder(), encoder()
    lazy.accelerate_(wanted, weights=weights)
    quantize_(model, LazyMLPConfig(weights=weights), filter_fn=whole_model)
    assert torch.equal(output(model), output(wanted))
    assert [block.last for block in lazy.status(model).blocks] == ["quantised"] * 2
    assert type(model.encoder.layer[0].attention.self.query) is nn.Linear
    (receipt,) = lazy.receipts(model)
    lazy.restore_(model, receipt)
    assert torch.equal(output(model), output(encoder()))


def together(how: str) -> nn.Module:
    model = encoder()
    if how == "two calls":
        quantize_(model, LazyMLPConfig(), filter_fn=whole_model)
        quantize_(model, Int8WeightOnlyConfig())
    else:
        rest = {r"re:.*attention.*(query|key|value|dense)": Int8WeightOnlyConfig(), "pooler.dense": None}
        quantize_(model, FqnToConfig({"": LazyMLPConfig(), **rest}), filter_fn=None)
    return model


@pytest.mark.parametrize("how", ["two calls", "one config"])
def test_torchao_quantises_the_rest(how: str) -> None:
    model = together(how)
    names = {name for name, module in model.named_modules() if isinstance(module, Quantised)}
    assert names == {f"encoder.layer.{k}.{part}.dense" for k in (0, 1) for part in ("intermediate", "output")}
    theirs = {name.removesuffix(".weight") for name, p in model.named_parameters() if type(p) is not nn.Parameter}
    layers = {f"encoder.layer.{k}.attention.{part}" for k in (0, 1) for part in (
        "self.query", "self.key", "self.value", "output.dense"
    )}  # fmt: skip
    assert theirs == (layers | {"pooler.dense"} if how == "two calls" else layers)
    reference = encoder()  # by hand: our blocks, and each other weight rounded to 127 steps a row
    lazy.accelerate_(reference, weights="int8")
    for name, layer in reference.named_modules():
        if name in theirs:
            step = layer.weight.data.abs().amax(1, keepdim=True) / 127.5
            layer.weight.data = (layer.weight.data / step).round().clamp(-128, 127) * step
    got, wanted, original = output(model), output(reference), output(encoder())
    assert [block.last for block in lazy.status(model).blocks] == ["quantised"] * 2
    assert (got - wanted).norm() < 0.3 * (got - original).norm()
    assert (got - original).norm() < 0.05 * original.norm()


def test_what_cannot_be_done_is_said() -> None:
    model = encoder()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=r"filter_fn=lazyneuron\.torchao\.whole_model"):
        quantize_(model, LazyMLPConfig())
    assert lazy.receipts(model) == ()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(ConfigError, match="got 'keep'"):
        LazyMLPConfig(weights="keep")
    with pytest.raises(ConfigError, match="got 16"):
        LazyMLPConfig(group=16)
    with pytest.raises(NoBlocksError):
        quantize_(nn.Sequential(nn.ReLU()), LazyMLPConfig(), filter_fn=whole_model)
    taken = encoder()
    quantize_(taken, Int8WeightOnlyConfig())
    with pytest.raises(ConfigError, match=r"layer\.0\.intermediate\.dense .* call quantize_ with LazyMLPConfig first"):
        quantize_(taken, LazyMLPConfig(), filter_fn=whole_model)
