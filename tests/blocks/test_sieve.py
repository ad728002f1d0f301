"""The sieve before an experiment: what could be an element-wise function passes, what is only alike does not."""

import pytest
import torch

from lazyneuron.blocks import find_blocks
from lazyneuron.blocks.find import dataflow
from lazyneuron.blocks.find.dataflow import depends

Z = torch.randn(8, 300, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "function",
    [torch.relu, torch.nn.functional.gelu, torch.nn.functional.silu, lambda z: torch.sin(10 * z), torch.square]
    + [lambda z, cut=cut: torch.relu(z - cut) for cut in (1.0, 2.0, 2.8)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 8])
def test_functions_pass(function, dtype, rows):
    z = Z[:rows].to(dtype)
    assert depends(z, function(z))


@pytest.mark.parametrize("noise", [0.35, 0.5, 1.0])
def test_a_stream_that_a_layer_only_dominates_does_not(noise):
    """As where the same weights in many layers turn the residual stream into one direction."""
    other = torch.randn(Z.shape, generator=torch.Generator().manual_seed(1))
    assert not depends(Z, Z + noise * other)


def test_pairs_of_layers_are_told_apart_before_they_are_compared(monkeypatch):
    """The comparisons of what layers read grow with the layers, not with their cube."""
    counted = []

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.o = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
            self.gate, self.up, self.down = torch.nn.Linear(8, 24), torch.nn.Linear(8, 24), torch.nn.Linear(24, 8)

        def forward(self, x):
            x = x + self.o(self.q(x).cumsum(-1).sin())
            return x + self.down(torch.relu(self.gate(x)) * self.up(x))

    def same(a, b, wrapped=dataflow.same):
        counted.append(1)
        return wrapped(a, b)

    monkeypatch.setattr(dataflow, "same", same)
    often = []
    for layers in (4, 8):
        counted.clear()
        torch.manual_seed(0)
        model = torch.nn.Sequential(*(Layer() for _ in range(layers)))
        assert len(find_blocks(model, torch.randn(1, 6, 8))) == layers
        often.append(len(counted))
    assert often[1] <= 3 * often[0]
