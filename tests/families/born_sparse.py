"""Families whose own MLPs are zero at most neurons: ``python -m tests.families.born_sparse`` writes their table.

Each is built small from its config with random weights, whose density is about one half: what is shown is that every
block is found and runs sparsely in every format, not how much that saves.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.modules import Quantised
from lazyneuron.blocks import find
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.report import markdown_table
from tests.blocks.architectures import BOTH_SIDES, IDS, PIXELS, TOKENS, hugging_face
from tests.families.verbs import apart, outputs, same_state
from tests.kernels import SPARSE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "born-sparse.md"
MARKED = re.compile(r"(<!-- table -->\n).*?(<!-- /table -->)", re.DOTALL)
FORMATS = {
    "keep": ("keep", "keep"),
    "int8": ("int8", "int8"),
    "int4": ("int4", "int4"),
    "keep, rest int8": ("keep", "int8"),
}
# of the largest output: kept weights; quantised layers, whose inputs lie on a grid of 16 bits a token
EXACT, ON_A_GRID = 3e-6, 5e-4
DECODER = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
PLAIN = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"}
T5 = {"vocab_size": 96, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
BOTH = {
    "vocab_size": 96, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128, "encoder_attention_heads": 4, "decoder_attention_heads": 4, **IDS,
}  # fmt: skip


class DReLU(nn.Module):
    """The MLP of TurboSparse and Bamboo: one function, called on both factors."""

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(d, hidden, bias=False), nn.Linear(d, hidden, bias=False)
        self.down_proj, self.act_fn = nn.Linear(hidden, d, bias=False), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """down(relu(gate x) * relu(up x))."""
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.act_fn(self.up_proj(x)))


def turbo_sparse() -> nn.Module:
    """Mistral with that MLP."""
    model = hugging_face("MistralConfig", "AutoModelForCausalLM", **DECODER)()
    for layer in model.model.layers:
        layer.mlp = DReLU(64, 128)
    return model


def detr() -> nn.Module:
    """DETR has a convolutional backbone with a config of its own."""
    import transformers

    backbone = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"])
    config = transformers.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=64,
        encoder_layers=2, decoder_layers=2, encoder_ffn_dim=128, decoder_ffn_dim=128, encoder_attention_heads=4,
        decoder_attention_heads=4, num_queries=5,
    )  # fmt: skip
    return transformers.AutoModel.from_config(config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BornSparse:
    """A family: how it is built, what its papers say of its density, and a batch.

    Attributes:
        title: as the page has it.
        build: makes the model.
        published: the share of neurons that fire, and who says so; "-" where we know of no number.
        batch: an input.
        sequence: it has an encoder and a decoder.
    """

    title: str
    build: Callable[[], nn.Module]
    published: str = "-"
    batch: dict[str, Any] = dataclasses.field(default_factory=lambda: {"input_ids": TOKENS})

    def model(self) -> nn.Module:
        """The model with the same random weights every time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = self.build().eval()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(torch.randn_like(p) * 0.1)
        return model


def causal(config: str, **options: Any) -> Callable[[], nn.Module]:
    """A language model."""
    return hugging_face(config, "AutoModelForCausalLM", **options)


def both_sides(config: str, **options: Any) -> Callable[[], nn.Module]:
    """An encoder with a decoder."""
    return hugging_face(config, "AutoModelForSeq2SeqLM", **options)


FAMILIES = {
    "opt": BornSparse(
        title="OPT",
        build=causal("OPTConfig", **PLAIN | {"ffn_dim": 128, "word_embed_proj_dim": 64, "max_position_embeddings": 64}),
        published="about .03 at 6.7 B (Mirzadeh et al., *ReLU Strikes Back*, 2023)",
    ),
    "t5": BornSparse(
        title="T5 (v1.0)", build=both_sides("T5Config", **T5), batch=BOTH_SIDES,
        published=".03 at base (Li et al., *The Lazy Neuron Phenomenon*, 2022)",
    ),
    "chronos": BornSparse(
        title="Chronos (T5 on time series)", batch=BOTH_SIDES,
        build=both_sides("T5Config", **T5 | {"vocab_size": 128}, feed_forward_proj="relu", tie_word_embeddings=True),
    ),
    "nllb": BornSparse(title="NLLB, M2M-100", build=both_sides("M2M100Config", **BOTH), batch=BOTH_SIDES),
    "pegasus": BornSparse(
        title="Pegasus (with `activation_function=relu`)", batch=BOTH_SIDES,
        build=both_sides("PegasusConfig", **BOTH, activation_function="relu"),
    ),
    "nemotron": BornSparse(title="Nemotron-4, Minitron (squared ReLU)", build=causal("NemotronConfig", **DECODER)),
    "arcee": BornSparse(title="Arcee AFM (squared ReLU)", build=causal("ArceeConfig", **DECODER)),
    "persimmon": BornSparse(title="Persimmon (squared ReLU)", build=causal("PersimmonConfig", **PLAIN)),
    "prosparse": BornSparse(
        title="ProSparse, ReluLLaMA (Llama with `hidden_act=relu`)",
        build=causal("LlamaConfig", **DECODER, hidden_act="relu"),
        published=".107 at Llama-2 7 B, .112 at 13 B (Song et al., *ProSparse*, 2024)",
    ),
    "turbosparse": BornSparse(
        title="TurboSparse, Bamboo (dReLU)", build=turbo_sparse,
        published="about .10 at Mistral 7 B (Song et al., *Turbo Sparse*, 2024)",
    ),
    "gemma3n": BornSparse(
        title="Gemma 3n (Gaussian top-k in its first layers)",
        build=causal(
            "Gemma3nTextConfig", **DECODER, head_dim=16, vocab_size_per_layer_input=96, hidden_size_per_layer_input=16,
            laurel_rank=8, num_kv_shared_layers=0, layer_types=["full_attention", "sliding_attention"], **IDS,
            activation_sparsity_pattern=[0.95, 0.95],
        ),
        published=".05 in the layers that have it, by construction (its config)",
    ),
    "detr": BornSparse(title="DETR", build=detr, batch=PIXELS),
    "transformer": BornSparse(
        title="`nn.Transformer`", build=lambda: nn.Transformer(64, 4, 2, 2, 128, batch_first=True),
        batch={"src": torch.ones(2, 7, 64).cumsum(1).sin(), "tgt": torch.ones(2, 3, 64).cumsum(1).cos()},
    ),
}  # fmt: skip


def dequantised(model: nn.Module) -> nn.Module:
    """A copy of an accelerated model whose layers hold, as float32, what the bytes mean, and nothing is accelerated."""
    plain = copy.deepcopy(model)
    lazy.restore_(plain, lazy.receipts(plain)[-1])  # takes its parts back too
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, Quantised):
                there = plain.get_submodule(name)
                weight = nn.Parameter(layer.dequantised().to(layer.dtype))  # not in place: heads share theirs
                there.weight = weight
    return plain


@functools.cache
def row(name: str) -> dict[str, str | int]:
    """One family through every format; a cell says what ran, after the comparisons of :func:`_through`."""
    family = FAMILIES[name]
    blocks = find(family.model()).blocks
    cells = {what: _through(family, *formats) for what, formats in FORMATS.items()}
    kinds = {f"`{block.activation.kind}`" + (", up too" if block.rectifies_up else "") for block in blocks}
    first = "gated" if blocks[0].gate is not None else "plain"
    facts = {"model": family.title, "blocks": f"{len(blocks)} {first}", "activation": ", ".join(sorted(kinds))}
    return facts | cells | {"published density": family.published}


def _through(family: BornSparse, weights: str, rest: str) -> str:
    model, batch = family.model(), family.batch
    original, before = copy.deepcopy(model), outputs(model, batch)
    options = {"weights": weights, "rest": rest, "impl": SPARSE if weights == "keep" else "auto"}
    try:
        receipt = lazy.accelerate_(model, [batch], **options)
    except NoBlocksError as error:
        assert "whole token" in str(error) or "no linear layer" in str(error)
        return "dense" if "whole token" in str(error) else "-"
    got = outputs(model, batch)
    names = {block.name for block in find(original).blocks}
    try:
        ran = lazy.status(model).blocks
    except NoBlocksError:
        assert weights == "keep" and not find(original).blocks[0].activation.elementwise
        ran = ()
    assert {b.block for b in ran} == (names if ran else set())
    assert all(b.sparse_calls == b.calls > 0 and 0 < (b.fired or 0.5) < 1 for b in ran)
    limit = EXACT if weights == rest == "keep" else ON_A_GRID
    assert apart(got, outputs(dequantised(model), batch)) <= limit
    assert weights == rest == "keep" or apart(got, before) > 10 * limit  # something was quantised
    lazy.restore_(model, receipt)
    assert all(map(torch.equal, outputs(model, batch), before)) and same_state(model, original)
    return next(
        (f"certified{', rest int8' * (rest != weights)}" if b.last.startswith("certified") else b.last for b in ran),
        "dense",
    )


def main() -> None:
    """Put the table into the page."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own
        text = markdown_table([row(name) for name in FAMILIES]) + "\n"
    PAGE.write_text(MARKED.sub(lambda m: m[1] + text + m[2], PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
