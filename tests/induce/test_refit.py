"""Closed-form silencing and refitting against least squares and counting."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lazyneuron.blocks import Activation, find_blocks
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce import (
    BlockSamples,
    Relufy,
    block_samples,
    offsets_for,
    refit_down_,
    shift_bias_,
    sparsify_,
    thresholds_for,
)
from lazyneuron.ops.quantised.format import Format, quantise_columns
from tests.induce.networks import Masked, gelu_mlp, inputs


def test_samples_are_what_the_blocks_saw():
    model, x = gelu_mlp(), inputs(rows=64)
    found = block_samples(model, find_blocks(model), batches=[x[:40], (x[40:],)])
    middle = model[1](model[0](x))
    assert torch.equal(found["0"].inputs, x)
    assert torch.allclose(found["0"].outputs, model[0](x), atol=1e-6)
    assert torch.allclose(found["2"].inputs, middle, atol=1e-6)
    assert torch.allclose(found["2"].outputs, model[2](middle), atol=1e-6)


def test_samples_leave_padding_out_and_the_model_as_it_was():
    model = Masked().train()
    x = torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    found = block_samples(model, find_blocks(model), batches=[{"x": x, "attention_mask": mask}])
    assert torch.equal(found["mlp"].inputs, x[mask.bool()])
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(DataError, match="No tokens ran"):
        block_samples(model, find_blocks(model), batches=[])


@pytest.mark.parametrize("density", [0.05, 0.3, 0.8])
def test_shifted_biases_give_the_density(density):
    model = gelu_mlp(hidden=40)
    samples = block_samples(model, find_blocks(model), batches=[inputs(rows=500)])
    sparsify_(model, Relufy())
    for block in find_blocks(model):
        old = block.up.bias.detach().clone()
        shift = shift_bias_(block, samples[block.name], density=density)
        assert torch.allclose(block.up.bias, old - shift)
        z = F.linear(samples[block.name].inputs, block.up.weight, block.up.bias)
        assert (z > 0).float().mean().item() == pytest.approx(density, abs=2e-3)


@pytest.mark.parametrize("density", [0.05, 0.5])
def test_thresholds_give_the_density(density):
    model = gelu_mlp(hidden=40)
    blocks = find_blocks(model)
    samples = block_samples(model, blocks, batches=[inputs(rows=500)])
    for name, activation in thresholds_for(blocks, samples, density=density).items():
        block = next(b for b in blocks if b.name == name)
        h = activation(F.linear(samples[name].inputs, block.up.weight, block.up.bias))
        assert activation.kind == "fatrelu"
        assert (h != 0).float().mean().item() == pytest.approx(density, abs=2e-3)


@pytest.mark.parametrize("density", [0.1, 0.4])
def test_offsets_keep_gelu_where_it_fires_and_its_mean_where_it_does_not(density):
    model = gelu_mlp(hidden=40)
    blocks = find_blocks(model)
    samples = block_samples(model, blocks, batches=[inputs(rows=500)])
    found = offsets_for(blocks, samples, density={block.name: density for block in blocks})
    for block in blocks:
        z = F.linear(samples[block.name].inputs, block.up.weight, block.up.bias).detach()
        gelu, h = F.gelu(z), found[block.name](z)
        silent = h == 0
        assert (~silent).float().mean().item() == pytest.approx(density, abs=2e-3)
        assert z[silent].max() < z[~silent].min()
        mean = gelu[silent].mean()
        assert torch.allclose(h[~silent], gelu[~silent] - mean, atol=1e-5)
        # no other constant in the place of the silent ones would lose less
        assert (gelu - torch.where(silent, mean, gelu)).square().mean() <= (gelu - h - mean).square().mean() + 1e-9


def test_refit_is_the_least_squares_solution():
    model = gelu_mlp(d=3, hidden=8).double()
    x = inputs(rows=400, d=3).double()
    samples = block_samples(model, find_blocks(model), batches=[x])
    sparsify_(model, Relufy())
    block = find_blocks(model)[0]
    h = torch.relu(F.linear(x, block.up.weight, block.up.bias)).detach()
    h = torch.cat([h, torch.ones(len(h), 1)], dim=1)
    y = samples["0"].outputs
    best = (y - h @ torch.linalg.lstsq(h, y).solution).square().sum() / (y - y.mean()).square().sum()
    before, after = refit_down_(block, samples["0"], ridge=1e-12, rows=37)
    assert after == pytest.approx(best.item(), rel=1e-4)
    assert after < before / 2
    now = F.linear(torch.relu(F.linear(x, block.up.weight, block.up.bias)), block.down.weight, block.down.bias)
    measured = (y - now).square().sum() / (y - y.mean()).square().sum()
    assert measured.item() == pytest.approx(after, rel=1e-6)


def refitted(bits):
    """A block and its samples, of few features that many neurons share, so that one can make up for another."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 64), nn.GELU(), nn.Linear(64, 7))
    samples = block_samples(model, find_blocks(model), batches=[inputs(rows=800, d=5)])[""]
    sparsify_(model, Relufy())
    block = find_blocks(model)[0]
    return block, samples, refit_down_(block, samples, bits=bits)


def error_of(block, samples, weight):
    with torch.no_grad():
        now = F.linear(block.hidden(samples.inputs), weight, block.down.bias)
    y = samples.outputs
    return ((y - now).square().sum() / (y - y.mean()).square().sum()).item()


def test_a_refit_on_a_grid_is_what_is_stored_and_better_than_rounding_afterwards():
    block, samples, (_, after) = refitted(bits=8)
    stored = quantise_columns(block.down.weight, Format(bits=8))
    on_grid = (stored.bytes.float() * stored.scale[:, None]).t()
    assert torch.allclose(on_grid, block.down.weight, rtol=1e-6, atol=1e-7)
    assert error_of(block, samples, block.down.weight) == pytest.approx(after, rel=1e-3)
    free, _, (_, least) = refitted(bits=None)
    nearest = quantise_columns(free.down.weight, Format(bits=8))
    rounded = error_of(free, samples, (nearest.bytes.float() * nearest.scale[:, None]).t())
    assert least < after and after - least < (rounded - least) / 2


def test_a_strong_ridge_changes_nothing():
    model = gelu_mlp()
    samples = block_samples(model, find_blocks(model), batches=[inputs()])
    sparsify_(model, Relufy())
    block = find_blocks(model)[0]
    old = block.down.weight.detach().clone()
    refit_down_(block, samples["0"], ridge=1e9)
    assert torch.allclose(block.down.weight, old, atol=1e-5)


def test_errors():
    model = gelu_mlp()
    blocks = find_blocks(model)
    samples = block_samples(model, blocks, batches=[inputs()])
    with pytest.raises(ConfigError, match="install ReLU first"):
        shift_bias_(blocks[0], samples["0"], density=0.1)
    with pytest.raises(ConfigError, match="fraction"):
        thresholds_for(blocks, samples, density=1.5)
    with pytest.raises(DataError, match="no samples for block 0"):
        thresholds_for(blocks, {}, density=0.5)
    with pytest.raises(ConfigError, match="no density for 2"):
        offsets_for(blocks, samples, density={"0": 0.5})
    with pytest.raises(DataError, match="no samples for block 0"):
        offsets_for(blocks, {}, density=0.5)
    with pytest.raises(ConfigError, match="activation relu; only GELU"):
        offsets_for(find_blocks(nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 3))), {}, density=0.5)
    with pytest.raises(ConfigError, match="number > 0"):
        refit_down_(blocks[0], samples["0"], ridge=0.0)
    with pytest.raises(ConfigError, match="bits is None or 8, got 4"):
        refit_down_(blocks[0], samples["0"], bits=4)
    bare = nn.Sequential(nn.Linear(3, 7, bias=False), nn.ReLU(), nn.Linear(7, 3))
    with pytest.raises(ConfigError, match="has no bias"):
        shift_bias_(find_blocks(bare)[0], BlockSamples(inputs=torch.ones(2, 3), outputs=torch.ones(2, 3)), density=0.1)


def test_a_block_without_bias_can_be_refitted():
    model = nn.Sequential(nn.Linear(3, 9, bias=False), nn.GELU(), nn.Linear(9, 3, bias=False))
    samples = block_samples(model, find_blocks(model), batches=[inputs(d=3)])
    sparsify_(model, Relufy(activation=Activation("fatrelu", (0.1,))))
    before, after = refit_down_(find_blocks(model)[0], samples[""], ridge=1e-6)
    assert after < before
