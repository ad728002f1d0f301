"""What looking costs beside a training step."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks import find
from lazyneuron.core.record import Record
from lazyneuron.core.timing import repeated
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.explain import explain
from lazyneuron.report import markdown_table, provenance
from lazyneuron.train import LossGuard, SparsityMonitor

Made = tuple[nn.Module, dict[str, Tensor]]


def vision() -> Made:
    """A ViT of 4 layers and width 256 with ReLU, on 8 images of 197 tokens."""
    return _vit(8, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4)


def wide() -> Made:
    """A ViT of 2 layers at the size of ViT-B/16 (width 768, 3072 neurons), on 4 images of 197 tokens."""
    return _vit(4, hidden_size=768, intermediate_size=3072, num_hidden_layers=2, num_attention_heads=12)


def _vit(images: int, **sizes: Any) -> Made:
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(ViTConfig(**sizes, hidden_act="relu", num_labels=10))  # type: ignore[call-arg]
    return model, {"pixel_values": torch.randn(images, 3, 224, 224), "labels": torch.randint(10, (images,))}


def language() -> Made:
    """A decoder of 4 layers and width 256 with ReLU and 4096 words, on 8 texts of 128 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=4096, n_embd=256, n_layer=4, n_head=4, n_positions=128, activation_function="relu")
    tokens = torch.randint(4096, (8, 128))
    return GPT2LMHeadModel(config), {"input_ids": tokens, "labels": tokens}


def _seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    return repeated(work, rounds=1).median_us / 1e6


def _row(make: Callable[[], Made], rounds: int) -> dict[str, Any]:
    """Time both in turns, and the spectra once."""
    torch.manual_seed(SEED)
    model, batch = make()
    blocks = find(model).or_raise().blocks
    optimizer = torch.optim.AdamW(model.train().parameters(), 1e-4)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def explained() -> None:
        explain(model, [batch], blocks=blocks, spectra=False)

    monitor = SparsityMonitor(model, every=1, blocks=blocks)

    def watched() -> None:
        with monitor.watching(1):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for warm_up in (step, explained, watched):
        warm_up()
    pairs, watching, guarding = [], [], []
    for _ in range(rounds):
        pairs.append((_seconds(step), _seconds(explained)))
        watching.append(_seconds(watched) / pairs[-1][0])
        guard = LossGuard(model, blocks=blocks)
        guarding.append(_seconds(step) / pairs[-1][0])
        guard.remove()
    spectra = _seconds(lambda: explain(model, [], blocks=blocks, gradients=False))
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


def run(request: Request) -> Record:
    """All three models."""
    rows = []
    makers = (vision, language, wide)
    for number, make in enumerate(makers):
        request.advance(number / len(makers), make.__name__)
        rows.append(_row(make, 1 if request.quick else 5))
    return benchmark_record("explain", title="Cost of explain beside a training step", rows=rows)


def _section(record: Record) -> str:
    rows = [
        {
            "model": row["model"],
            "training step ms": round(row["training_step_ms"]),
            "explain ms": round(row["explain_ms"]),
            "ratio": f"{row['ratio']:.2f}x",
            "lowest to highest": f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}",
            "spectra, once, ms": round(row["spectra_once_ms"]),
            "step with a reading": f"{row['watched_step_ratio']:.2f}x",
            "step with a guard": f"{row['guarded_step_ratio']:.2f}x",
        }
        for row in record.data["rows"]
    ]
    return (
        "Medians of rounds in which both ran in turns; a training step is forward, backward and AdamW. The ratio is to "
        "be at most 3. The last columns are a training step that `SparsityMonitor` looks at, and one with `LossGuard`, "
        f"over a bare one.\n\n{markdown_table(rows)}\n\n{provenance(record)}\n"
    )


EXPERIMENT = Experiment(
    name="explain",
    title="What explain costs beside a training step",
    run=run,
    kind="benchmark",
    sections={"docs/explain.md": _section},
)
