"""Dense and hash-sampled softmax on synthetic classes with Zipf frequencies: time of a step, and final loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.experiments.bench.processor_time import clocked
from lazyneuron.route import HashedOutput

_WIDTH = 128
Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def output_layers(classes: int, steps: int) -> list[dict[str, Any]]:
    """Both, on the same batches of 256 with the same learning rate, which falls in a straight line to 0."""
    draw = _examples(classes)
    test = draw(2048, torch.Generator().manual_seed(9))
    return [_row(sampled, classes=classes, steps=steps, draw=draw, test=test) for sampled in (False, True)]


def _examples(classes: int) -> Draw:
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, _WIDTH, generator=g)
    chance = 1 / torch.arange(1, classes + 1, dtype=torch.float64)

    def draw(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.multinomial(chance, rows, replacement=True, generator=generator)
        return (centres[labels] + torch.randn(rows, _WIDTH, generator=generator)) / math.sqrt(2), labels

    return draw


def _row(sampled: bool, *, classes: int, steps: int, draw: Draw, test: tuple[Tensor, Tensor]) -> dict[str, Any]:
    layer = HashedOutput(_WIDTH, classes, hard=4096, sampled=12288, seed=1)
    layer.weight.data.mul_(0.1)
    dense = torch.nn.ParameterList([layer.weight.detach().clone(), torch.zeros(classes)])
    optimizer: torch.optim.Optimizer = (
        torch.optim.SparseAdam(layer.parameters(), lr=0.02)
        if sampled
        else torch.optim.Adam(dense.parameters(), lr=0.02)
    )
    generator, times = torch.Generator().manual_seed(2), []

    def step(x: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = layer.loss(x, labels) if sampled else F.cross_entropy(F.linear(x, dense[0], dense[1]), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for number in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - number / steps)
        batch = draw(256, generator)
        times.append(clocked(lambda batch=batch: step(*batch))[1])  # type: ignore[misc]
    x, y = test
    with torch.no_grad():
        logits = layer(x) if sampled else F.linear(x, dense[0], dense[1])
        loss, hits = float(F.cross_entropy(logits, y)), float((logits.argmax(1) == y).double().mean())
    return {
        "layer": "hash-sampled" if sampled else "dense softmax",
        "classes": classes,
        "steps": steps,
        "median step ms": statistics.median(times) * 1e3,
        "mean step ms": statistics.mean(times) * 1e3,
        "final loss, dense evaluation": loss,
        "accuracy": hits,
        "recall of the best class": layer.recall(x[:200]) if sampled else 1.0,
    }
