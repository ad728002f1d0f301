"""Noise on skip connections: what they carry, where the noise is added, and the law that it has."""

import copy
import math

import pytest
import torch
from torch import nn

from lazyneuron.blocks.find import Skip, find_blocks, find_skip
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.core.undo import restore_
from lazyneuron.induce import DoublyBiased, sparsify_
from tests.blocks.architectures import KNOWN
from tests.induce.test_doubly_biased import Block, tokens

NOISE_ALONE = DoublyBiased(jsrelu=False, zeroth_bias=False, norm_floor=None, noise_rho=0.5, noise_skip=True)
SKIPS = {
    "gpt2": Skip("input", "h.0", "output"),
    "t5": Skip("input", "encoder.block.0.layer.1", "output"),
    "llama": Skip("input", "layers.0", "output"),
    "bloom": Skip("input", "h.0.mlp", "output"),
    "bert": Skip("output", "encoder.layer.0.output.LayerNorm", "input"),
    "distilbert": Skip("output", "transformer.layer.0.output_layer_norm", "input"),
    "encoder_layer": Skip("output", "layers.0.norm2", "input"),
    "gptj": None,  # attention is added in the same sum
    "gpt_neox": None,
    "sequential": None,  # nothing is carried past its blocks
}


class Residual(nn.Module):
    """A block whose output goes through a dropout before it is added to what the skip connection carries."""

    def __init__(self, *, post_norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.LayerNorm(6), nn.LayerNorm(6) if post_norm else nn.Identity()
        self.mlp = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 6))
        self.dropout = nn.Dropout(0.9)
        self.post_norm = post_norm
        nn.init.uniform_(self.first.weight, 3, 9)

    def forward(self, x):
        u = self.first(input=x)
        return self.last((u if self.post_norm else x) + self.dropout(self.mlp(u)))


@pytest.mark.parametrize("name", SKIPS)
def test_skip_connections_of_known_architectures(name):
    model = KNOWN[name].model()
    assert find_skip(model, find_blocks(model)[0]) == SKIPS[name]


@pytest.mark.parametrize("norm_first", [False, True])
def test_skip_connections_of_torchs_layers(norm_first):
    layer = nn.TransformerEncoderLayer(16, 2, 32, norm_first=norm_first, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = [find_skip(model, block) for block in find_blocks(model)]
    wanted = [
        ("input", f"layers.{k}", "output") if norm_first else ("output", f"layers.{k}.norm2", "input") for k in (0, 1)
    ]
    assert found == [Skip(*each) for each in wanted]


def test_noise_on_the_skip_connection_has_the_stated_law():
    """Of deviation rho ||x|| / (10 sqrt d): that of independent noise on every weight of an identity matrix."""
    model, x = Block(), tokens()
    receipt = sparsify_(model, NOISE_ALONE)
    assert "a tenth of it to the skip connection" in receipt.changes[0].reason
    silence(model.mlp)
    still = model.eval()(x)
    assert torch.equal(still, x)
    assert_law(lambda rows: model.train()(rows) - rows, x[0, :2], norms=x[0, :2].norm(dim=-1))
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    first = model(x)
    torch.manual_seed(1)
    assert torch.equal(twin(x), first) and not torch.equal(first, still)
    restore_(model, receipt)
    assert torch.equal(model.train()(x), still)
    with pytest.raises(ConfigError, match="give noise_rho a number"):
        DoublyBiased(noise_skip=True)


@pytest.mark.parametrize("post_norm", [False, True])
def test_a_dropout_of_the_blocks_output_does_not_reach_the_noise(post_norm):
    """And in a post-norm block the noise counts in what is carried there: the norm's output."""
    model, row = Residual(post_norm=post_norm), 40 * tokens()[0, :2]
    sparsify_(model, NOISE_ALONE)
    silence(model.mlp)
    sums = []
    model.last.register_forward_pre_hook(lambda _, args: sums.append(args[0].detach()))
    carried = (model.first(row) if post_norm else row).detach()

    def noise(rows):
        out = model.train()(rows).detach()
        return (sums[-1] if post_norm else out) - carried

    assert_law(noise, row, norms=carried.norm(dim=-1))


def test_noise_of_a_forward_that_failed_is_not_added_in_evaluation():
    model, x = Block(), tokens()
    sparsify_(model, NOISE_ALONE)
    still = model.eval()(x)

    def fail(*_):
        raise RuntimeError("stop")

    handle = model.mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        model.train()(x)
    handle.remove()
    assert torch.equal(model.eval()(x), still)


def test_blocks_that_share_a_skip_connection_are_skipped():
    with pytest.raises(NoBlocksError, match="No skip connection was found that adds this block alone"):
        sparsify_(KNOWN["gptj"].model(), NOISE_ALONE)


def silence(mlp: nn.Sequential) -> None:
    """The layers' own noise is 0 without weights, and the block adds nothing."""
    with torch.no_grad():
        mlp[2].weight.zero_()
        mlp[2].bias.zero_()


def assert_law(noise_of, row, *, norms, n=20000):
    torch.manual_seed(0)
    with torch.no_grad():
        noise = noise_of(row.expand(n, 2, -1))
    width = row.shape[-1]
    wanted = 0.5 / (10 * math.sqrt(width)) * norms
    torch.testing.assert_close(noise.std(0), wanted[:, None].expand(2, width), rtol=5 / math.sqrt(2 * n), atol=0)
    assert (torch.corrcoef(noise.reshape(n, -1).t()) - torch.eye(2 * width)).abs().max() < 5 / math.sqrt(n)
