"""Architectures at small size with random weights, what is known of their blocks from their papers, and an input."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

TOKENS = torch.arange(2 * 7).reshape(2, 7) % 29 + 3
SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What a search has to give.

    Attributes:
        title: the architecture's name in the documentation.
        build: makes the model.
        batch: an input of the whole model, as keyword arguments.
        activation: the function's kind.
        widths: (d_in, d_hidden, d_out) of every block.
        count: number of blocks.
        gated: whether they are.
        whole: whether one module stands for each block.
        replaceable: whether the function is an attribute.
        rejected: number of candidates that are reported and not accepted.
        note: what is special, for the documentation.
    """

    title: str
    build: Callable[..., nn.Module]
    batch: dict[str, Any] = dataclasses.field(default_factory=lambda: {"input_ids": TOKENS})
    activation: str = "gelu"
    widths: tuple[int, int, int] = (32, 48, 32)
    count: int = 2
    gated: bool = False
    whole: bool = True
    replaceable: bool = True
    rejected: int = 0
    note: str = ""

    def model(self, *head: str, seed: int = 0) -> nn.Module:
        """The model with the same random weights every time, in evaluation mode."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build(*head).eval()
            for p in model.parameters():  # far from the tiny initial values, so that no activation is near linear
                with torch.no_grad():
                    p.add_(torch.randn_like(p) * 0.1)
        return model


class HandWritten(nn.Module):
    """x -> fc2(relu(fc1(x))), the function held as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(32, 48), nn.Linear(48, 32)
        self.function = torch.relu

    def forward(self, x):
        return self.fc2(self.function(self.fc1(x)))


class WrittenOut(HandWritten):
    """The same with the function written into the forward."""

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x), approximate="tanh"))


class GatedSpread(nn.Module):
    """A transformer-like layer that does all by itself: no module stands for its gated block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.w1, self.w2, self.w3 = nn.Linear(32, 48), nn.Linear(48, 32), nn.Linear(32, 48)
        self.act, self.drop = nn.SiLU(), nn.Dropout(0.1)

    def forward(self, x):
        y = self.norm(x)
        return x + self.w2(self.drop(self.act(self.w1(y)) * self.w3(y)))


def two(part: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A stack of two of them."""
    return lambda: nn.Sequential(part(), part())


def hugging_face(config: str, head: str = "AutoModel", **options: Any) -> Callable[[], nn.Module]:
    """Builds a model from a config class; a head can be named when it is built."""

    def build(head: str = head) -> nn.Module:
        transformers = pytest.importorskip("transformers")
        return getattr(transformers, head).from_config(getattr(transformers, config)(**options))

    return build


def mixture(config: str, **options: Any) -> Callable[[], nn.Module]:
    """Builds a model of experts."""
    return hugging_face(config, **GROUPED, **options)


FLOATS = {"input": torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(5))}
PIXELS = {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))}
BOTH_SIDES = {"input_ids": TOKENS, "decoder_input_ids": TOKENS[:, :4]}
T5 = {"vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART = {
    "vocab_size": 40, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4, **IDS,
}  # fmt: skip
layer = functools.partial(nn.TransformerEncoderLayer, 32, 4, 48, batch_first=True)

KNOWN = {
    "sequential": Known(
        title="`nn.Sequential`",
        build=two(lambda: nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Dropout(0.1), nn.Linear(48, 32))),
        batch=FLOATS,
    ),
    "hand_written": Known(
        title="hand-written module", build=two(HandWritten), batch=FLOATS, activation="relu",
        note="function held as an attribute",
    ),
    "written_out": Known(
        title="hand-written module", build=two(WrittenOut), batch=FLOATS, activation="gelu_tanh", replaceable=False,
        note="function written into the forward",
    ),
    "gated_spread": Known(
        title="hand-written layer", build=two(GatedSpread), batch=FLOATS, activation="silu", gated=True, whole=False,
        note="the layer holds `w1`, `w2`, `w3` itself",
    ),
    "encoder_layer": Known(
        title="`nn.TransformerEncoderLayer`", build=lambda: nn.TransformerEncoder(layer(), 2), activation="relu",
        batch={"src": FLOATS["input"]}, whole=False, note="its fused path is switched off while spliced",
    ),
    "decoder_layer": Known(
        title="`nn.TransformerDecoderLayer`",
        build=lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 48, activation="gelu"), 2),
        batch={"tgt": FLOATS["input"], "memory": FLOATS["input"]}, whole=False,
    ),
    "bert": Known(title="BERT", build=hugging_face("BertConfig", **SMALL, intermediate_size=48), whole=False),
    "roberta": Known(title="RoBERTa", build=hugging_face("RobertaConfig", **SMALL, intermediate_size=48), whole=False),
    "albert": Known(
        title="ALBERT", build=hugging_face("AlbertConfig", **SMALL, intermediate_size=48, embedding_size=32),
        activation="gelu_tanh", whole=False, count=1, note="all layers share one block",
    ),
    "deberta": Known(
        title="DeBERTa-v2", build=hugging_face("DebertaV2Config", **SMALL, intermediate_size=48), whole=False
    ),
    "distilbert": Known(
        title="DistilBERT",
        build=hugging_face("DistilBertConfig", vocab_size=40, dim=32, n_layers=2, n_heads=4, hidden_dim=48),
    ),
    "modernbert": Known(
        title="ModernBERT", build=hugging_face("ModernBertConfig", **SMALL, intermediate_size=48, **IDS), gated=True,
        note="gate and up are one layer",
    ),
    "gpt2": Known(
        title="GPT-2",
        build=hugging_face("GPT2Config", vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_inner=48, **IDS),
        activation="gelu_tanh", note="`Conv1D`: weights stored as (in, out)",
    ),
    "opt": Known(
        title="OPT", build=hugging_face("OPTConfig", **SMALL, ffn_dim=48, word_embed_proj_dim=32), activation="relu",
        whole=False,
    ),
    "t5": Known(
        title="T5", build=hugging_face("T5Config", **T5), batch=BOTH_SIDES, activation="relu", count=4,
        note="dropout between activation and down",
    ),
    "t5_gated": Known(
        title="T5 v1.1", build=hugging_face("T5Config", **T5, feed_forward_proj="gated-gelu"), batch=BOTH_SIDES,
        activation="gelu_tanh", gated=True, count=4,
    ),
    "bart": Known(title="BART", build=hugging_face("BartConfig", **BART), batch=BOTH_SIDES, whole=False, count=4),
    "vit": Known(
        title="ViT",
        build=hugging_face(
            "ViTConfig", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16,  # noqa: E501
            patch_size=8,
        ),
        batch=PIXELS,
    ),
    "clip": Known(
        title="CLIP (vision)",
        build=hugging_face(
            "CLIPVisionConfig", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            image_size=16, patch_size=8,
        ),
        batch=PIXELS, activation="quick_gelu",
    ),
    "llama": Known(title="Llama", build=hugging_face("LlamaConfig", **GROUPED), activation="silu", gated=True),
    "mistral": Known(title="Mistral", build=hugging_face("MistralConfig", **GROUPED), activation="silu", gated=True),
    "qwen2": Known(title="Qwen2", build=hugging_face("Qwen2Config", **GROUPED), activation="silu", gated=True),
    "gemma": Known(
        title="Gemma", build=hugging_face("GemmaConfig", **GROUPED, head_dim=8), activation="gelu_tanh", gated=True
    ),
    "phi": Known(title="Phi", build=hugging_face("PhiConfig", **SMALL, intermediate_size=48), activation="gelu_tanh"),
    "phi3": Known(
        title="Phi-3", build=hugging_face("Phi3Config", **GROUPED, **IDS), activation="silu", gated=True,
        note="gate and up are one layer",
    ),
    "nemotron": Known(
        title="Nemotron", build=hugging_face("NemotronConfig", **GROUPED), activation="squared_relu"
    ),
    "falcon": Known(title="Falcon", build=hugging_face("FalconConfig", **SMALL, ffn_hidden_size=48)),
    "bloom": Known(
        title="Bloom", build=hugging_face("BloomConfig", vocab_size=40, hidden_size=32, n_layer=2, n_head=4),
        activation="gelu_tanh", widths=(32, 128, 32), whole=False, note="the module adds the residual itself",
    ),
    "gpt_neox": Known(title="GPT-NeoX", build=hugging_face("GPTNeoXConfig", **SMALL, intermediate_size=48)),
    "gptj": Known(
        title="GPT-J",
        build=hugging_face("GPTJConfig", vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_inner=48, rotary_dim=4),
        activation="gelu_tanh",
    ),
    "whisper": Known(
        title="Whisper",
        build=hugging_face("WhisperConfig", **BART, num_mel_bins=8, max_source_positions=10, decoder_start_token_id=1),
        batch={"input_features": torch.ones(2, 8, 20), "decoder_input_ids": TOKENS[:, :4]}, whole=False, count=4,
    ),
    "switch": Known(
        title="Switch Transformer",
        build=hugging_face(
            "SwitchTransformersConfig", **T5, num_experts=3, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1,
            num_decoder_layers=2,
        ),
        batch=BOTH_SIDES, activation="relu", count=8, note="each expert is a block",
    ),
    "mixtral": Known(
        title="Mixtral", build=mixture("MixtralConfig", num_local_experts=3), count=0, rejected=2,
        note="experts in batched weights",
    ),
    "qwen2_moe": Known(
        title="Qwen2-MoE",
        build=mixture(
            "Qwen2MoeConfig", num_experts=3, num_experts_per_tok=2, moe_intermediate_size=24,
            shared_expert_intermediate_size=48,
        ),
        activation="silu", gated=True, rejected=2, note="the shared expert is a block; the others are in batched weights",  # noqa: E501
    ),
}  # fmt: skip
