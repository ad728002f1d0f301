"""Families of models, each built from its config at a small size: those of the finder's tests, and more."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from tests.blocks.architectures import (
    BART,
    BOTH_SIDES,
    GROUPED,
    IDS,
    KNOWN,
    PIXELS,
    SMALL,
    T5,
    Known,
    hugging_face,
)

CAUSAL, SEQUENCE, SPEECH = "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq"
_OF_HEAD = {
    CAUSAL: (
        "gpt2 opt llama mistral qwen2 gemma phi phi3 nemotron falcon bloom gpt_neox gptj mixtral qwen2_moe llama_relu "
        "qwen3 gemma2 gemma3 gemma3n gemma3n_sparse persimmon arcee olmo olmo2 olmoe qwen3_moe deepseek gpt_oss phimoe "
        "granite starcoder2 stablelm cohere glm smollm3 mpt codegen gpt_neo xglm biogpt mamba rwkv"
    ),
    SEQUENCE: "t5 t5_gated bart switch m2m pegasus mbart marian blenderbot longt5 umt5",
    SPEECH: "whisper",
}
HEADS = {name: head for head, names in _OF_HEAD.items() for name in names.split()}
EXPERTS = {**GROUPED, "num_experts_per_tok": 2}
VISION = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "image_size": 16, "patch_size": 8}
GEMMA3N = {
    **GROUPED, "head_dim": 8, "vocab_size_per_layer_input": 40, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
    "num_kv_shared_layers": 0, "layer_types": ["full_attention", "sliding_attention"], **IDS,
}  # fmt: skip
WIDE = {"intermediate_size": 48}


def family(title: str, config: str, batch: dict[str, Any] | None = None, **options: Any) -> Known:
    """A family of transformers' models."""
    build = hugging_face(config, **options)
    return Known(title=title, build=build) if batch is None else Known(title=title, build=build, batch=batch)


def detr() -> Known:
    """DETR has a convolutional backbone with a config of its own."""
    import transformers

    backbone = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"])
    return family(
        "DETR", "DetrConfig", PIXELS, backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False,
        backbone=None, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=48,
        encoder_attention_heads=4, decoder_attention_heads=4, num_queries=5,
    )  # fmt: skip


MORE = {
    "transformer": Known(
        title="`nn.Transformer`",
        build=lambda: nn.Transformer(32, 4, 1, 1, 48, batch_first=True),
        batch={"src": torch.ones(2, 7, 32).cumsum(1), "tgt": torch.ones(2, 3, 32).cumsum(1)},
    ),
    "minilm": family("MiniLM (BERT with ReLU)", "BertConfig", **SMALL, **WIDE, hidden_act="relu"),
    "xlm_roberta": family("XLM-RoBERTa", "XLMRobertaConfig", **SMALL, **WIDE),
    "electra": family("ELECTRA", "ElectraConfig", **SMALL, **WIDE, embedding_size=32),
    "mpnet": family("MPNet", "MPNetConfig", **SMALL, **WIDE, **IDS),
    "nomic": family("Nomic BERT", "NomicBertConfig", **SMALL, **WIDE),
    "llama_relu": family("Llama with `hidden_act=relu`", "LlamaConfig", **GROUPED, hidden_act="relu"),
    "qwen3": family("Qwen3", "Qwen3Config", **GROUPED, head_dim=8),
    "gemma2": family("Gemma 2", "Gemma2Config", **GROUPED, head_dim=8),
    "gemma3": family("Gemma 3 (text)", "Gemma3TextConfig", **GROUPED, head_dim=8),
    "gemma3n": family("Gemma 3n (text), dense", "Gemma3nTextConfig", **GEMMA3N, activation_sparsity_pattern=[0.0, 0.0]),
    "gemma3n_sparse": family(
        "Gemma 3n (text), sparse", "Gemma3nTextConfig", **GEMMA3N, activation_sparsity_pattern=[0.9, 0.9]
    ),
    "persimmon": family("Persimmon", "PersimmonConfig", **SMALL, **WIDE),
    "arcee": family("Arcee", "ArceeConfig", **GROUPED),
    "olmo": family("OLMo", "OlmoConfig", **GROUPED),
    "olmo2": family("OLMo 2", "Olmo2Config", **GROUPED),
    "granite": family("Granite", "GraniteConfig", **GROUPED),
    "starcoder2": family("StarCoder 2", "Starcoder2Config", **GROUPED),
    "stablelm": family("StableLM", "StableLmConfig", **GROUPED),
    "cohere": family("Cohere", "CohereConfig", **GROUPED, **IDS),
    "glm": family("GLM", "GlmConfig", **GROUPED, head_dim=8, **IDS),
    "smollm3": family("SmolLM 3", "SmolLM3Config", **GROUPED, **IDS),
    "mpt": family("MPT", "MptConfig", vocab_size=40, d_model=32, n_layers=2, n_heads=4, expansion_ratio=2),
    "codegen": family(
        "CodeGen", "CodeGenConfig", vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_inner=48, rotary_dim=4, **IDS
    ),
    "gpt_neo": family(
        "GPT-Neo", "GPTNeoConfig", vocab_size=40, hidden_size=32, num_layers=2, num_heads=4, **WIDE,
        attention_types=[[["global"], 2]], **IDS,
    ),
    "xglm": family("XGLM", "XGLMConfig", vocab_size=40, d_model=32, num_layers=2, attention_heads=4, ffn_dim=48),
    "biogpt": family("BioGPT", "BioGptConfig", **SMALL, **WIDE),
    "rwkv": family(
        "RWKV", "RwkvConfig", vocab_size=40, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, **WIDE
    ),
    "mamba": family("Mamba", "MambaConfig", vocab_size=40, hidden_size=32, num_hidden_layers=2, state_size=4),
    "olmoe": family("OLMoE", "OlmoeConfig", **EXPERTS, num_experts=3),
    "qwen3_moe": family("Qwen3-MoE", "Qwen3MoeConfig", **EXPERTS, head_dim=8, num_experts=3, moe_intermediate_size=24),
    "gpt_oss": family("gpt-oss", "GptOssConfig", **EXPERTS, head_dim=8, num_local_experts=3),
    "phimoe": family("Phi-MoE", "PhimoeConfig", **GROUPED, num_local_experts=3),
    "deepseek": family(
        "DeepSeek-V3", "DeepseekV3Config", **SMALL, **WIDE, num_key_value_heads=4, moe_intermediate_size=24,
        n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=2, first_k_dense_replace=1, kv_lora_rank=8,
        q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8,
    ),
    "m2m": family("NLLB / M2M-100", "M2M100Config", BOTH_SIDES, **BART),
    "pegasus": family("Pegasus", "PegasusConfig", BOTH_SIDES, **BART),
    "mbart": family("mBART", "MBartConfig", BOTH_SIDES, **BART),
    "marian": family("Marian", "MarianConfig", BOTH_SIDES, **BART, decoder_start_token_id=1),
    "blenderbot": family("Blenderbot", "BlenderbotConfig", BOTH_SIDES, **BART),
    "longt5": family("LongT5", "LongT5Config", BOTH_SIDES, **T5),
    "umt5": family("UMT5", "UMT5Config", BOTH_SIDES, **T5),
    "detr": detr,
    "deit": family("DeiT", "DeiTConfig", PIXELS, **VISION, **WIDE),
    "beit": family("BEiT", "BeitConfig", PIXELS, **VISION, **WIDE),
    "dinov2": family("DINOv2", "Dinov2Config", PIXELS, **VISION, mlp_ratio=2),
    "siglip": family("SigLIP (vision)", "SiglipVisionConfig", PIXELS, **VISION, **WIDE),
    "swin": family(
        "Swin", "SwinConfig", PIXELS, image_size=16, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2],
        window_size=4, mlp_ratio=2,
    ),
    "wav2vec2": family(
        "wav2vec 2.0", "Wav2Vec2Config", {"input_values": torch.ones(2, 400).cumsum(1).sin()}, **SMALL, **WIDE,
        conv_dim=[8, 8], conv_stride=[5, 2], conv_kernel=[10, 3], num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    ),
}  # fmt: skip
NAMES = (*KNOWN, *MORE)
# alike to others of the table, and therefore not tried every time
_ALIKE = (
    "xlm_roberta electra nomic albert deberta clip gemma2 gemma3 olmo olmo2 granite starcoder2 stablelm cohere glm "
    "smollm3 codegen gpt_neo gptj xglm biogpt mbart marian blenderbot longt5 umt5 deit beit dinov2 siglip swin "
    "wav2vec2 phi deepseek phimoe gpt_oss t5_gated decoder_layer mpt rwkv"
)
SLOW = frozenset(_ALIKE.split())


@dataclasses.dataclass(frozen=True)
class Family:
    """A family with the head that it generates with, if it is one that generates."""

    name: str

    @property
    def known(self) -> Known:
        """How it is built."""
        found = KNOWN[self.name] if self.name in KNOWN else MORE[self.name]
        return found if isinstance(found, Known) else found()

    @property
    def head(self) -> str | None:
        """The class that generates."""
        return HEADS.get(self.name)

    def model(self, *, seed: int = 0) -> nn.Module:
        """The model with random weights."""
        return self.known.model(*([] if self.head is None else [self.head]), seed=seed)

    @property
    def prompt(self) -> dict[str, Any]:
        """What generation begins with."""
        return {key: value for key, value in self.known.batch.items() if key != "decoder_input_ids"}
