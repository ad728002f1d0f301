"""Weights that cannot be worked with are named, not passed over."""

import math

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.core.errors import NoBlocksError


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("verb", [lazy.accelerate_, lambda m: lazy.measure(m, [torch.zeros(2, 8)])])
def test_a_first_layer_that_is_not_finite(value, verb):
    model = mlp()
    model[0].weight.data[1, 2] = value
    with pytest.raises(NoBlocksError, match="0: Its weight holds NaN or infinity"):
        verb(model)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_last_layer_that_is_not_finite_is_measured_but_not_accelerated(value):
    model = mlp()
    model[2].weight.data[1, 2] = value
    assert lazy.measure(model, [torch.ones(2, 8)]).blocks[0].tokens == 2
    with pytest.raises(NoBlocksError, match="The weights of 2 hold NaN or infinity"):
        lazy.accelerate_(model)


def test_weights_that_are_not_loaded():
    with torch.device("meta"):
        model = mlp()
    with pytest.raises(NoBlocksError, match="0: Its weight is on the meta device; load it"):
        lazy.accelerate_(model)
