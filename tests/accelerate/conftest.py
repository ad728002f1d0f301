"""No test here measures the machine: the cost model is a made-up one in which sparse execution wins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lazyneuron.accelerate import prepare
from lazyneuron.accelerate.machine import costs
from lazyneuron.accelerate.machine.cost_model import CostModel
from lazyneuron.accelerate.path import DENSE, PATHS
from lazyneuron.accelerate.policy.choice import BUCKETS
from lazyneuron.accelerate.quantised.decoder import LayerForward
from lazyneuron.accelerate.quantised.stack import Stack


def made_up(dtype: torch.dtype = torch.float32) -> CostModel:
    """Dense costs 100 us a token count step, every sparse path 10 us plus the work."""
    cell = tuple((10.0 * k, 200.0 * k) for k in (1, 2))
    return CostModel(
        dtype=str(dtype).removeprefix("torch."),
        fingerprint="test",
        shapes=((8, 16), (64, 256)),
        tokens=(1, 64),
        dense_us=((100.0, 200.0), (100.0, 200.0)),
        lines={path: (cell, cell) for path in PATHS.values() if path is not DENSE},
        computed=((0.01, 0.02), (0.4, 0.5)),
    )


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "are_known", lambda dtype: True)
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))
    monkeypatch.setattr(prepare, "measure_checks", lambda *_, **__: (0.0,) * BUCKETS)


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every layer that runs as one operator, or together with others."""
    seen: list[int] = []
    real, together = LayerForward.step, Stack._run

    def run(self: Stack, *args: Any) -> Any:
        made = together(self, *args)
        seen.extend(layer.index for layer in (made.layers if made is not None else ()))
        return made

    monkeypatch.setattr(LayerForward, "step", lambda self, *args: seen.append(self.index) or real(self, *args))
    monkeypatch.setattr(Stack, "_run", run)
    return seen
