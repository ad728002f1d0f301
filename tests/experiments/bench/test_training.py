"""The benchmark of a training step: what it says of limits follows from the density."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lazyneuron.experiments.bench import training
from lazyneuron.experiments.experiment import Request
from tests.kernels import needs_kernels


@needs_kernels
def test_a_row_says_what_its_density_means():
    (row,) = training.run(Request(quick=True)).data["rows"]
    p = row["density"]
    assert abs(p - 0.1) < 0.02 and row["ceiling"] == pytest.approx(6 / (1 + 5 * p), abs=0.01)
    assert all(row[f"{name}_ms"] > 0 for name in ("dense", "packed", "auto"))


@pytest.mark.parametrize("density", [0.03, 0.3])
def test_the_block_fires_as_asked(density):
    model = training.block_at(64, 512, density=density, arithmetic=None)
    assert isinstance(model, nn.Sequential)
    x = torch.randn(400, 64, generator=torch.Generator().manual_seed(5))
    assert float((model[0](x) > 0).float().mean()) == pytest.approx(density, rel=0.15)


@needs_kernels
def test_wrong_gradients_are_not_timed(monkeypatch):
    monkeypatch.setattr(training, "_close", lambda a, b: False)
    with pytest.raises(Exception, match="packed"):
        training.run(Request(quick=True))
