"""Measuring models of other libraries; what is expected comes from hooks placed by hand on modules known by name."""

import contextlib
import re

import pytest
import torch
from torch import nn

from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.measure import measure, mlp_time_share

TOKENS = torch.arange(2 * 9).reshape(2, 9) % 29
MASK = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])


@contextlib.contextmanager
def inputs_of(model, pattern):
    """Everything that goes into the modules whose names match, in order."""
    seen = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0].clone()))
        for name, module in model.named_modules()
        if re.fullmatch(pattern, name)
    ]
    yield seen
    for handle in handles:
        handle.remove()


def hidden_densities(model, batch, pattern, mask=None):
    with torch.no_grad(), inputs_of(model, pattern) as seen:
        model(**batch)
    found = []
    for calls in seen.values():
        fired = torch.cat([(h != 0).reshape(-1, h.shape[-1]) for h in calls])
        found.append(fired[mask.reshape(-1) != 0] if mask is not None else fired)
    return [f.double().mean().item() for f in found]


def hugging_face(name):
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    models = {
        "bert": lambda: transformers.BertModel(
            transformers.BertConfig(**small, intermediate_size=24, hidden_act="relu")
        ),
        "gpt2": lambda: transformers.GPT2Model(
            transformers.GPT2Config(
                vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_inner=24, activation_function="relu"
            )
        ),
        "opt": lambda: transformers.OPTModel(
            transformers.OPTConfig(**small, ffn_dim=24, word_embed_proj_dim=16, max_position_embeddings=40)
        ),
        "t5": lambda: transformers.T5Model(
            transformers.T5Config(
                vocab_size=30, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0
            )
        ),
    }
    return models[name]().eval()


@pytest.mark.parametrize(
    ("name", "down"),
    [("bert", r".*\.output\.dense"), ("gpt2", r".*mlp\.c_proj"), ("opt", r".*fc2")],
)
def test_padded_text_models(name, down):
    model = hugging_face(name)
    batch = {"input_ids": TOKENS, "attention_mask": MASK}
    wide = [d for d in (m for n, m in model.named_modules() if re.fullmatch(down, n)) if 24 in d.weight.shape]
    assert len(wide) == 2
    report = measure(model, [batch, batch])
    expected = hidden_densities(model, batch, down, MASK)
    if name == "bert":
        expected = expected[1::2]  # attention.output.dense matches too
    assert [b.tokens for b in report.blocks] == [28, 28]
    assert [b.padding for b in report.blocks] == ["excluded"] * 2
    assert [b.density for b in report.blocks] == pytest.approx(expected)
    assert all(b.activation == "relu" and b.d_hidden == 24 for b in report.blocks)


def test_encoder_and_decoder_have_their_own_tokens():
    model = hugging_face("t5")
    batch = {"input_ids": TOKENS, "attention_mask": MASK, "decoder_input_ids": TOKENS[:, :4]}
    report = measure(model, [batch])
    by_side = {side: [b for b in report.blocks if b.name.startswith(side)] for side in ("encoder", "decoder")}
    assert [(b.tokens, b.padding) for b in by_side["encoder"]] == [(14, "excluded")] * 2
    assert [(b.tokens, b.padding) for b in by_side["decoder"]] == [(8, "mask did not fit")] * 2
    expected = hidden_densities(model, batch, r"decoder\..*\.wo")
    assert [b.density for b in by_side["decoder"]] == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("nested", [False, True])
def test_transformer_encoder_with_and_without_nested_tensors(nested):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested).eval()
    x = torch.randn(2, 9, 16)
    batch = {"src": x, "src_key_padding_mask": MASK == 0}
    report = measure(model, [batch], tokens_mask=lambda b: ~b["src_key_padding_mask"])
    model.enable_nested_tensor = model.use_nested_tensor = False
    with torch.no_grad(), inputs_of(model, r"layers\.\d\.linear2") as seen:
        model(**batch)
    for block, (h,) in zip(report.blocks, seen.values(), strict=True):
        fired = (h != 0).double()
        assert block.tokens == 14
        assert block.overlap_pairs == 12
        assert block.padding == "excluded"
        assert block.density == pytest.approx(fired[MASK != 0].mean().item())
        pairs = [torch.stack([fired[0, t], fired[0, t + 1]]) for t in range(8)]
        pairs += [torch.stack([fired[1, t], fired[1, t + 1]]) for t in range(4)]
        overlaps = [(p.amin(0).sum() / p.amax(0).sum()).item() for p in pairs]
        assert block.overlap == pytest.approx(sum(overlaps) / 12)


def test_compiled_model_is_observed():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    compiled = torch.compile(plain, backend="eager")
    x = torch.randn(4, 8)
    with torch.no_grad():
        compiled(x)
    expected = measure(plain, [x]).blocks[0]
    found = measure(compiled, [x]).blocks[0]
    assert found.tokens == 4
    assert torch.equal(found.firing_counts, expected.firing_counts)


def test_adapter_is_part_of_the_pre_activation():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"], init_lora_weights=False)).eval()
    x = torch.randn(50, 8)
    (block,) = measure(model, [x]).blocks
    with torch.no_grad():
        z = dict(model.named_modules())["base_model.model.0"](x)
    assert block.density_if_relu == pytest.approx((z > 0).double().mean().item())
    assert block.refusal is not None


@pytest.mark.parametrize("verb", [measure, mlp_time_share])
def test_a_model_without_blocks(verb):
    with pytest.raises(NoBlocksError, match=r"No MLP block was found in this model; .* pass a model that has one"):
        verb(nn.Linear(3, 3), [torch.randn(2, 3)])


@pytest.mark.filterwarnings("ignore")  # other libraries' own
@pytest.mark.parametrize(
    ("config", "options", "layer"),
    [
        ("Phi3Config", {"hidden_act": "relu", "num_key_value_heads": 2}, r".*mlp\.gate_up_proj"),
        ("ModernBertConfig", {"hidden_activation": "relu"}, r".*mlp\.Wi"),
    ],
)
def test_gate_and_up_in_one_layer(config, options, layer):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    known = {k: v for k, v in ids.items() if k[:3] not in ("cls", "sep") or config == "ModernBertConfig"}
    made = getattr(transformers, config)(**small, **known, **options, intermediate_size=24)
    model = transformers.AutoModel.from_config(made).eval()
    batch = {"input_ids": TOKENS, "attention_mask": MASK}
    seen = []
    names = [name for name, _ in model.named_modules() if re.fullmatch(layer, name)]
    handles = [model.get_submodule(n).register_forward_hook(lambda _, __, y: seen.append(y)) for n in names]
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    expected = []
    for y in seen:
        gate = y.reshape(-1, 48)[:, :24] > 0  # both compute function(first half) * second half
        gate = gate if len(gate) == 14 else gate[MASK.reshape(-1) != 0]
        expected.append(gate.double().mean().item())
    report = measure(model, [batch])
    assert [b.tokens for b in report.blocks] == [14, 14]
    assert [b.density for b in report.blocks] == pytest.approx(expected)
    assert [b.density_if_relu for b in report.blocks] == pytest.approx(expected)
    with pytest.raises(NoBlocksError, match="because the masks are zero everywhere"):
        measure(model, [batch], tokens_mask=lambda _: torch.zeros(2, 9))


def test_a_call_that_was_left_out_is_not_blamed_on_the_mask():
    model = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)).eval()
    (block,) = find_blocks(model)
    block.up.module.register_forward_hook(lambda _, __, y: [y])
    block.down.module.forward = lambda y: y[0]
    model[1].forward = lambda y: y if isinstance(y, list) else nn.functional.gelu(y)
    with pytest.raises(NoBlocksError, match="A call was left out: its hidden activation is list") as caught:
        measure(model, [torch.ones(2, 8)], blocks=[block])
    assert "mask" not in str(caught.value)
