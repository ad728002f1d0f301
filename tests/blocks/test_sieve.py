"""The sieve before an experiment: what could be an element-wise function passes, what is only alike does not."""

import pytest
import torch

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
