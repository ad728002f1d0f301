"""Peng et al., validation: training moves pre-activations where the derivative is zero, whatever the output there."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lazyneuron.blocks import MLPBlock, find_blocks, replace_activation_
from lazyneuron.core.record import Record
from lazyneuron.core.undo import transaction
from lazyneuron.induce import ShiftedActivation
from lazyneuron.reproduce.classifier import Regime, vision_transformer
from lazyneuron.reproduce.experiment import Experiment, Request, record_of
from lazyneuron.reproduce.images import Images, load_images

CORNERS = ((1.6, 1.6), (1.6, -1.6), (-1.6, 1.6), (-1.6, -1.6))
_DIFFERS = (
    "A transformer of 3 layers and width 64 on 8 x 8 digits in place of ViT-B/16 on CIFAR-10 at 224 pixels; no "
    "zeroth bias; "
    "a larger learning rate over fewer steps. The paper publishes no numbers for it."
)


def run(request: Request) -> Record:
    """Train one model for each corner (dx, dy) and seed."""
    images = load_images(request.data)
    regime = Regime(epochs=6 if request.quick else 60, learning_rate=2e-3, looks=3 if request.quick else 12)
    total, done = len(CORNERS) * request.seeds, 0
    runs: dict[tuple[float, float], list[list[dict[str, float]]]] = {corner: [] for corner in CORNERS}
    for seed in range(request.seeds):
        for corner in CORNERS:

            def advance(share: float, done: int = done, note: str = f"dx, dy = {corner}, seed {seed}") -> None:
                request.advance((done + share) / total, note)

            runs[corner].append(_train(images, regime, corner, seed, advance))
            done += 1
    rows = [_row(corner, runs[corner]) for corner in CORNERS]
    rose = sum(row["share in flat interval, end"] > row["share in flat interval, start"] for row in rows)
    return record_of(
        "peng-shifted",
        rows=rows,
        curves=[_curve(corner, found) for corner, found in runs.items()],
        says=(
            f"The share of pre-activations in the zero-derivative interval rises in {rose} of {len(rows)} cases, "
            f"although the "
            "output there is 1.6 or -1.6 and not 0: it is the derivative that training silences."
        ),
        facts={
            **dataclasses.asdict(regime),
            "data": images.name,
            "seeds": request.seeds,
            "quick": request.quick,
            "half_interval": 1.5,
        },
        differs=_DIFFERS,
        axes=("epoch", "share of pre-activations where the derivative is zero"),
    )


def _train(
    images: Images, regime: Regime, corner: tuple[float, float], seed: int, advance: Any
) -> list[dict[str, float]]:
    torch.manual_seed(seed)
    model = vision_transformer(images, regime)
    dx, dy = corner
    blocks = find_blocks(model)
    with transaction(model, "shifted") as change:
        for block in blocks:
            replace_activation_(change, block, ShiftedActivation("squared_relu", dx=dx, dy=dy))
    optimizer = torch.optim.Adam(model.parameters(), lr=regime.learning_rate)
    dice = torch.Generator().manual_seed(seed)
    marks = sorted({max(1, round(regime.epochs * k / regime.looks)) for k in range(1, regime.looks + 1)})
    points = [_look(model, images, blocks, corner, 0)]
    for epoch in range(1, regime.epochs + 1):
        model.train()
        for rows in torch.split(torch.randperm(len(images.train), generator=dice), regime.batch):
            loss = F.cross_entropy(model(pixel_values=images.train[rows]).logits, images.train_labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), regime.clip)
            optimizer.step()
        advance(epoch / regime.epochs)
        if epoch in marks:
            points.append(_look(model, images, blocks, corner, epoch))
    return points


@torch.no_grad()
def _look(
    model: nn.Module, images: Images, blocks: Sequence[MLPBlock], corner: tuple[float, float], epoch: int
) -> dict[str, float]:
    model.eval()
    dx, dy = corner
    activation = ShiftedActivation("squared_relu", dx=dx, dy=dy)
    flat, near, slopes, handles = [], [], [], []

    def hook(_: nn.Module, __: Any, p: torch.Tensor) -> None:
        inside = activation.flat_interval.contains(p)
        flat.append(float(inside.float().mean()))
        near.append(float(((activation(p) - dy).abs() < 1e-6).float().mean()))
        slopes.append(float(activation.derivative(p).square().mean()))

    handles = [block.up.module.register_forward_hook(hook) for block in blocks]
    try:
        logits = model(pixel_values=images.test).logits
    finally:
        for handle in handles:
            handle.remove()
    return {
        "epoch": epoch,
        "flat": statistics.mean(flat),
        "near_dy": statistics.mean(near),
        "derivative_square": statistics.mean(slopes),
        "accuracy": float((logits.argmax(-1) == images.test_labels).float().mean()),
    }


def _row(corner: tuple[float, float], found: Sequence[list[dict[str, float]]]) -> dict[str, Any]:
    def mean(key: str, at: int) -> float:
        return statistics.mean(points[at][key] for points in found)

    return {
        "dx": corner[0],
        "dy": corner[1],
        "share in flat interval, start": mean("flat", 0),
        "share in flat interval, end": mean("flat", -1),
        "outputs within 1e-6 of dy, end": mean("near_dy", -1),
        "mean squared derivative, start": mean("derivative_square", 0),
        "mean squared derivative, end": mean("derivative_square", -1),
        "accuracy": mean("accuracy", -1),
        "paper": None,
    }


def _curve(corner: tuple[float, float], found: Sequence[list[dict[str, float]]]) -> dict[str, Any]:
    columns = list(zip(*found, strict=True))
    return {
        "label": f"dx = {corner[0]:+g}, dy = {corner[1]:+g}",
        "x": [column[0]["epoch"] for column in columns],
        "y": [statistics.mean(p["flat"] for p in column) for column in columns],
        "low": [min(p["flat"] for p in column) for column in columns],
        "high": [max(p["flat"] for p in column) for column in columns],
    }


EXPERIMENT = Experiment(
    name="peng-shifted",
    title="Pre-activations move into the zero-derivative interval, wherever it lies and whatever the output there",
    source="Peng, Qi, Shi, Gao (2023), arXiv 2309.03004, section 6; Peng et al. (2026), arXiv 2605.25612, section V",
    differs=_DIFFERS,
    run=run,
)
