"""What is found in which architecture, and that looking changes nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.blocks import find_blocks
from lazyneuron.blocks.find import find
from lazyneuron.core.errors import NoBlocksError

transformers = pytest.importorskip("transformers")
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def _hf(config: str, **values: object) -> nn.Module:
    made = getattr(transformers, config)(**values)
    return transformers.AutoModel.from_config(made).eval()


# name -> (model, number of blocks, activation, gated, is there a container)
ARCHITECTURES = {
    "Sequential": (
        lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 8)),
        (1, "relu", False, True),
    ),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2),
        (2, "relu", False, False),
    ),
    "TransformerDecoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 64, activation="gelu"), 2),
        (2, "gelu", False, False),
    ),
    "BERT": (lambda: _hf("BertConfig", vocab_size=50, **_SMALL), (2, "gelu", False, False)),
    "OPT": (
        lambda: _hf(
            "OPTConfig",
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=64,
            vocab_size=50,
            word_embed_proj_dim=32,
        ),
        (2, "relu", False, False),
    ),
    "T5": (
        lambda: _hf("T5Config", d_model=32, d_ff=64, num_layers=2, num_heads=4, d_kv=8, vocab_size=50),
        (4, "relu", False, True),
    ),
    "T5 gated": (
        lambda: _hf(
            "T5Config",
            d_model=32,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            d_kv=8,
            vocab_size=50,
            feed_forward_proj="gated-gelu",
        ),
        (4, "gelu_tanh", True, True),
    ),
    "GPT-2": (
        lambda: _hf("GPT2Config", n_embd=32, n_layer=2, n_head=4, vocab_size=50, bos_token_id=0, eos_token_id=0),
        (2, "gelu_tanh", False, True),
    ),
    "ViT": (lambda: _hf("ViTConfig", image_size=16, patch_size=8, **_SMALL), (2, "gelu", False, None)),
    "Llama": (lambda: _hf("LlamaConfig", vocab_size=50, **_SMALL), (2, "silu", True, True)),
    "Mistral": (
        lambda: _hf("MistralConfig", vocab_size=50, num_key_value_heads=2, **_SMALL),
        (2, "silu", True, True),
    ),
    "Qwen2": (lambda: _hf("Qwen2Config", vocab_size=50, **_SMALL), (2, "silu", True, True)),
    "Gemma": (
        lambda: _hf("GemmaConfig", vocab_size=50, num_key_value_heads=2, head_dim=8, **_SMALL),
        (2, "gelu_tanh", True, True),
    ),
    "Phi": (lambda: _hf("PhiConfig", vocab_size=50, **_SMALL), (2, "gelu_tanh", False, True)),
    "Falcon": (
        lambda: _hf("FalconConfig", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=50),
        (2, "gelu", False, True),
    ),
    "Bloom": (
        lambda: _hf("BloomConfig", hidden_size=32, n_layer=2, n_head=4, vocab_size=50),
        (2, "gelu_tanh", False, False),
    ),
    "GPT-NeoX": (lambda: _hf("GPTNeoXConfig", vocab_size=50, **_SMALL), (2, "gelu", False, True)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name: str) -> None:
    build, (count, activation, gated, container) = ARCHITECTURES[name]
    blocks = find_blocks(build())
    assert len(blocks) == count
    for block in blocks:
        assert (block.activation.kind, block.gate is not None) == (activation, gated)
        assert container is None or (block.container is not None) == container
        assert block.refusal is None and block.site is not None
        assert block.d_hidden == block.down.weight.shape[1] == block.up.weight.shape[0]


def test_looking_changes_nothing() -> None:
    model = ARCHITECTURES["TransformerEncoder"][0]().train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    find_blocks(model)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_a_linear_after_a_linear_is_no_block() -> None:
    assert find_blocks(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))) == []
    assert find_blocks(nn.MultiheadAttention(8, 2)) == []


def test_refusals_name_the_reason() -> None:
    hooked = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    hooked[2].register_forward_hook(lambda *_: None)
    assert "hooks" in str(find_blocks(hooked)[0].refusal)


def test_meta_models_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(NoBlocksError):
        accelerate_(model)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.005, 0.02, 0.1])
@pytest.mark.parametrize("seed", range(6))
def test_a_block_that_hardly_ever_fires_is_found(density, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 200), nn.ReLU(), nn.Linear(200, 12))
    z = model[1](model[0](torch.randn(2000, 12))).detach()
    model[1].bias.data -= 100.0 if density == 0 else z.flatten().kthvalue(int((1 - density) * z.numel())).values
    (block,) = find_blocks(model)
    assert (block.up.name, block.activation.kind, block.down.name) == ("1", "relu", "3")


def test_without_norms_the_rest_is_found_all_the_same():
    model = _hf("LlamaConfig", vocab_size=50, hidden_act="relu", **_SMALL)  # norms show in the whole model alone
    whole, fast = find(model), find(model, norms=False)
    assert all(block.norm is not None for block in whole.blocks) and fast.rejected == whole.rejected
    assert [block.norm for block in fast.blocks] == [None, None]
    for one, other in zip(fast.blocks, whole.blocks, strict=True):
        for field in dataclasses.fields(one):
            if field.name != "norm":
                assert repr(getattr(one, field.name)) == repr(getattr(other, field.name))
