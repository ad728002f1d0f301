"""What looking costs beside a training step."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

from lazyneuron.blocks import find
from lazyneuron.core.record import Record, write_text
from lazyneuron.core.timing import repeated
from lazyneuron.explain import explain
from lazyneuron.train import LossGuard, SparsityMonitor


def vision() -> tuple[nn.Module, dict[str, Tensor]]:
    """A ViT of 4 layers and width 256 with ReLU, on 8 images of 197 tokens."""
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = ViTForImageClassification(ViTConfig(**sizes, hidden_act="relu", num_labels=10))
    return model, {"pixel_values": torch.randn(8, 3, 224, 224), "labels": torch.randint(10, (8,))}


def language() -> tuple[nn.Module, dict[str, Tensor]]:
    """A decoder of 4 layers and width 256 with ReLU and 4096 words, on 8 texts of 128 tokens."""
    config = GPT2Config(vocab_size=4096, n_embd=256, n_layer=4, n_head=4, n_positions=128, activation_function="relu")
    tokens = torch.randint(4096, (8, 128))
    return GPT2LMHeadModel(config), {"input_ids": tokens, "labels": tokens}


def wide() -> tuple[nn.Module, dict[str, Tensor]]:
    """A ViT of 2 layers at the size of ViT-B/16 (width 768, 3072 neurons), on 4 images of 197 tokens."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2, "num_attention_heads": 12}
    model = ViTForImageClassification(ViTConfig(**sizes, hidden_act="relu", num_labels=10))
    return model, {"pixel_values": torch.randn(4, 3, 224, 224), "labels": torch.randint(10, (4,))}


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    return repeated(work, rounds=1).median_us / 1e6


def measure(make: Callable[[], tuple[nn.Module, dict[str, Tensor]]], rounds: int) -> dict[str, Any]:
    """Time both in turns, and the spectra once."""
    torch.manual_seed(0)
    model, batch = make()
    blocks = find(model).or_raise().blocks
    optimizer = torch.optim.AdamW(model.train().parameters(), 1e-4)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def look() -> None:
        explain(model, [batch], blocks=blocks, spectra=False)

    monitor = SparsityMonitor(model, every=1, blocks=blocks)

    def watched() -> None:
        with monitor.watching(1):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(), look(), watched()
    pairs, watching, guarding = [], [], []
    for _ in range(rounds):
        pairs.append((seconds(step), seconds(look)))
        watching.append(seconds(watched) / pairs[-1][0])
        guard = LossGuard(model, blocks=blocks)
        guarding.append(seconds(step) / pairs[-1][0])
        guard.remove()
    spectra = seconds(lambda: explain(model, [], blocks=blocks, gradients=False))
    ratios = sorted(b / a for a, b in pairs)
    return {
        "model": (make.__doc__ or "").rstrip("."),
        "training_step_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "explain_ms": 1e3 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
        "spectra_once_ms": 1e3 * spectra,
        "watched_step_ratio": statistics.median(watching),
        "guarded_step_ratio": statistics.median(guarding),
        "rounds": rounds,
    }


def main() -> None:
    """Measure all models and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = [measure(make, options.rounds) for make in (vision, language, wide)]
    for row in rows:
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    if options.json is not None:
        data = {"title": "Cost of explain beside a training step", "rows": rows}
        write_text(options.json, Record(kind="benchmark/explain", data=data, seed=0).to_json())


if __name__ == "__main__":
    main()
