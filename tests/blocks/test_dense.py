"""The dense block is its definition."""

import pytest
import torch
from torch import nn

from lazyneuron.blocks import Activation, LinearSite, MLPBlock


@pytest.mark.parametrize("kind", ["plain", "gated", "both rectified"])
def test_the_dense_block_is_its_formula_neuron_by_neuron(kind):
    torch.manual_seed(0)
    layers = {"up": nn.Linear(5, 7), "gate": nn.Linear(5, 7), "down": nn.Linear(7, 3)}
    sites = {name: LinearSite(name=name, module=layer) for name, layer in layers.items()}
    if kind == "plain":
        del sites["gate"]
    block = MLPBlock(name="b", **sites, activation=Activation("relu"), rectifies_up=kind == "both rectified")
    x = torch.randn(4, 5)
    wanted = layers["down"].bias.double().repeat(4, 1)
    for i in range(7):
        read = {
            name: x.double() @ w.weight[i].double() + w.bias[i].double()
            for name, w in layers.items()
            if w.in_features == 5
        }
        h = read["up"] if kind != "both rectified" else read["up"].clamp(min=0)
        h = h.clamp(min=0) if kind == "plain" else read["gate"].clamp(min=0) * h
        wanted = wanted + h[:, None] * layers["down"].weight[:, i].double()
    torch.testing.assert_close(block.forward(x).double(), wanted, rtol=1e-5, atol=1e-5)


def test_what_the_activation_returns_is_cast_to_the_weights():
    class Wide(nn.Module):
        def forward(self, z):
            return z.float().relu()

    up, down = (nn.Linear(4, 4).bfloat16() for _ in range(2))
    block = MLPBlock(
        name="b",
        up=LinearSite(name="up", module=up),
        down=LinearSite(name="down", module=down),
        activation=Activation("other", function=Wide()),
    )
    x = torch.randn(2, 4).bfloat16()
    assert torch.equal(block.forward(x), down(up(x).float().relu().bfloat16()))
