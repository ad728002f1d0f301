"""The demo in miniature: a random BERT, words as tokens, a folder of small sources."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lazyneuron.experiments.demo.corpus import library_sources, snippets
from lazyneuron.experiments.demo.encoder import Encoder
from lazyneuron.experiments.demo.settings import Settings
from lazyneuron.experiments.texts.corpus import Texts, read_texts
from lazyneuron.experiments.texts.kinds import File

SETTINGS = Settings(
    held_out_lines=60,
    held_out_tokens=70,
    train_lines=60,
    train_tokens=24,
    sample_lines=40,
    closed_form_densities=(0.3,),
    start_density=0.2,
    target_density=0.1,
    steps=4,
    step_tokens=200,
    checkpoints=(0.5,),
    latency_seconds=0.05,
    compile=False,
    engines=False,
)


def sources(folder: Path, *, files: int = 150) -> Path:
    """Files with long lines, about 60 words each, different in each file."""
    for k in range(files):
        texts = [" ".join(f"ab{(j * (n + 3) + 31 * k) % 997}" for j in range(62)) for n in range(5)]
        lines = [f'"""{texts[0]}"""', f"# {texts[1]}", *(f"call(first)  # {text[n:]}" for n, text in enumerate(texts))]
        (folder / f"module{k}.py").write_text("\n".join(lines) + "\n")
    return folder


def texts_in(folder: Path) -> Callable[..., Texts]:
    """Collects the text of such files alone."""

    def files():
        for name, source in library_sources(folder):
            yield File(name, lambda source=source: [s.text for s in snippets(source, "")])

    return lambda **given: read_texts(**given, kinds={"code": files})


def load() -> Encoder:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)

    def tokenize(texts: Sequence[str], longest: int) -> list[list[int]]:
        rows = [[1, *(4 + zlib.crc32(word.encode()) % 60 for word in text.split()), 2] for text in texts]
        return [row if len(row) <= longest else [*row[: longest - 1], 2] for row in rows]

    return Encoder(name="tiny", model=BertModel(config).eval(), tokenize=tokenize)
