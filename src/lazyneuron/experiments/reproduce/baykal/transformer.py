"""An open question of Baykal et al.: LSH layers inside a transformer, at equal active FLOPs."""

from __future__ import annotations

import dataclasses
import statistics
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.experiments.experiment import Finding, Request, band, published
from lazyneuron.experiments.jobs import run_cases
from lazyneuron.experiments.reproduce.baykal.samples import SOURCE
from lazyneuron.induce import sparsify_
from lazyneuron.route import RoutedFFN, RouteFFN, Switch

_SYMBOLS, _LENGTH, _WIDTH = 128, 96, 96
_DIFFERS = (
    "The paper asks this question and answers it with no measurement. A small byte-level transformer on the source "
    "text of "
    "Python's standard library; experts have the hidden width of the dense block, so every variant computes as much "
    "for a "
    "token but the router."
)
VARIANTS = {
    "dense": None,
    "LSH, 8 experts": RouteFFN(router="lsh", experts=8, jitter=0.5),
    "random hash, 8 experts": RouteFFN(router="random", experts=8, jitter=0.5),
    "Switch, 8 experts": RouteFFN(router="switch", experts=8, jitter=0.5),
}


class Layer(nn.Module):
    """Attention to earlier positions, then an MLP block."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def attend(self, x: Tensor) -> Tensor:
        """What attention makes of (batch, positions, width)."""
        h = self.first(x)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        out: Tensor = x + self.attention(h, h, h, attn_mask=later, need_weights=False)[0]
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(batch, positions, width), the same out."""
        x = self.attend(x)
        out: Tensor = x + self.mlp(self.second(x))
        return out


class Reader(nn.Module):
    """Predicts the next byte, with two layers."""

    def __init__(self, *, width: int = _WIDTH, hidden: int = 2 * _WIDTH, length: int = _LENGTH) -> None:
        super().__init__()
        self.embed = nn.Embedding(_SYMBOLS, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.Sequential(Layer(width, hidden), Layer(width, hidden))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, _SYMBOLS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits for what follows each position."""
        out: Tensor = self.head(self.norm(self.layers(self.embed(tokens) + self.place[: tokens.shape[1]])))
        return out


def library_text(size: int) -> Tensor:
    """Bytes of the standard library's modules in the order of their names, above 126 as 127."""
    parts, have = [], 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        raw = path.read_bytes()
        parts.append(raw)
        have += len(raw)
        if have >= size:
            break
    joined = bytearray(b"".join(parts)[:size])
    return torch.frombuffer(joined, dtype=torch.uint8).long().clamp(max=_SYMBOLS - 1)


def windows(text: Tensor, rows: int, generator: torch.Generator, *, length: int = _LENGTH) -> Tensor:
    """(rows, length + 1) pieces of a text from random places."""
    start = torch.randint(len(text) - length - 1, (rows,), generator=generator)
    return text[start[:, None] + torch.arange(length + 1)]


def train(recipe: RouteFFN | None, text: Tensor, *, steps: int, evaluations: int, seed: int) -> list[tuple[int, float]]:
    """(step, held-out bits a byte); the last tenth of the text is held out."""
    torch.manual_seed(seed)
    model = Reader()
    if recipe is not None:
        sparsify_(model, recipe)
    used = [p for name, p in model.named_parameters() if recipe is None or ".mlp." not in name or "routed" in name]
    optimizer = torch.optim.AdamW(used, lr=2e-3)
    generator, cut = torch.Generator().manual_seed(seed), len(text) * 9 // 10
    held_out = windows(text[cut:], 64, torch.Generator().manual_seed(99))
    found = []
    for step in range(1, steps + 1):
        rows = windows(text[:cut], 16, generator)
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        for module in model.modules():
            if isinstance(module, RoutedFFN) and isinstance(module.router, Switch):
                assert module.router.balance_loss is not None
                loss = loss + 0.01 * module.router.balance_loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % max(1, steps // evaluations) == 0:
            model.eval()
            with torch.no_grad():
                nats = F.cross_entropy(model(held_out[:, :-1]).flatten(0, 1), held_out[:, 1:].flatten())
            found.append((step, float(nats) / 0.6931471805599453))
            model.train()
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One training.

    Attributes:
        variant: a key of :data:`VARIANTS`.
        size: bytes of text.
        steps, evaluations, seed: as for :func:`train`.
    """

    variant: str
    size: int
    steps: int
    evaluations: int
    seed: int


def train_job(job: Training, advance: Callable[[float], None]) -> list[tuple[int, float]]:
    """Train one variant; returns what :func:`train` does."""
    found = train(
        VARIANTS[job.variant], library_text(job.size), steps=job.steps, evaluations=job.evaluations, seed=job.seed
    )
    advance(1.0)
    return found


def run(request: Request) -> Finding:
    """Every variant with every seed."""
    steps, evaluations = (20, 2) if request.quick else (800, 8)
    size = 200_000 if request.quick else 2_000_000

    def job(variant: str, seed: int) -> Training:
        return Training(variant=variant, size=size, steps=steps, evaluations=evaluations, seed=seed)

    found = run_cases(train_job, list(VARIANTS), job=job, seeds=request.seeds, advance=request.advance)
    rows: list[dict[str, Any]] = []
    curves = []
    for label, runs in zip(VARIANTS, found, strict=True):
        curves.append(band(label, x=[s for s, _ in runs[0]], runs=[[b for _, b in run] for run in runs]))
        last = [run[-1][1] for run in runs]
        rows.append(
            {
                "feed-forward layers": label,
                "bits a byte, held out": statistics.mean(last),
                "lowest": min(last),
                "highest": max(last),
                "paper": None,
            }
        )
    gaps = {row["feed-forward layers"]: row["bits a byte, held out"] - rows[0]["bits a byte, held out"] for row in rows}
    return Finding(
        rows=rows,
        curves=curves,
        sentence="Held-out bits a byte against dense at equal active FLOPs: "
        + ", ".join(f"{name} {gap:+.3f}" for name, gap in list(gaps.items())[1:])
        + ".",
        axes=("step", "bits a byte, held out"),
        facts={"steps": steps, "bytes": size, "width": _WIDTH, "seeds": request.seeds},
    )


EXPERIMENT = published(
    name="baykal-transformer",
    title="Routed feed-forward layers in a transformer, at equal active FLOPs",
    source=f"{SOURCE}, an open question of section 6",
    differs=_DIFFERS,
    run=run,
)
