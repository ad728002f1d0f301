"""Removing neurons: what is proved holds for every input, what is removed changes nothing, and it can be undone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lazyneuron as lazy
from lazyneuron.core.errors import CheckpointError, ConfigError, NoBlocksError
from lazyneuron.induce.silent import proved_silent
from tests.blocks.architectures import KNOWN

pytestmark = pytest.mark.filterwarnings("ignore")  # other libraries' own


class RMSNorm(nn.Module):
    """As language models write it; ``one`` stores the scale minus 1."""

    def __init__(self, d: int, one: float = 0.0) -> None:
        super().__init__()
        self.weight, self.one = nn.Parameter(torch.full((d,), 1.0 - one)), one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (self.weight + self.one)


def block(norm: nn.Module, d: int = 12, hidden: int = 200, spread: float = 12.0) -> nn.Module:
    """Biases over a wide range, so that some neurons are provably silent and some only nearly."""
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(norm, nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, d)).eval()
    with torch.no_grad():
        model[1].bias.copy_(-spread * torch.rand(hidden, generator=g))
        model[0].weight.mul_(0.5 + torch.rand(d, generator=g))
    return model


NORMS = {
    "layer": lambda: nn.LayerNorm(12),
    "shifted layer": lambda: nn.LayerNorm(12),
    "rms": lambda: nn.RMSNorm(12),
    "written rms": lambda: RMSNorm(12),
    "gemma": lambda: RMSNorm(12, 1.0),
}


def build(name: str) -> nn.Module:
    model = block(NORMS[name]())
    if name == "shifted layer":
        nn.init.normal_(model[0].bias, generator=torch.Generator().manual_seed(1))
    return model


def worst_inputs(model: nn.Module) -> torch.Tensor:
    """For each neuron the input that drives it highest, by gradient ascent through the norm; then random ones."""
    x = torch.randn(200, 12, generator=torch.Generator().manual_seed(2)).requires_grad_()
    for _ in range(200):
        z = model[1](model[0](x)).diagonal()
        (g,) = torch.autograd.grad(z.sum(), x)
        x = (x + 0.3 * F.normalize(g, dim=-1)).detach().requires_grad_()
    return torch.cat([x.detach(), torch.randn(2000, 12, generator=torch.Generator().manual_seed(3)) * 5])


@pytest.mark.parametrize("name", NORMS)
def test_what_is_proved_never_fires_and_the_bound_is_tight(name: str) -> None:
    model = build(name)
    (found,) = lazy.find_blocks(model)
    silent = proved_silent(found, model[0])
    assert silent is not None
    highest = model[1](model[0](worst_inputs(model))).amax(0)
    assert bool((highest[silent] <= 0).all())
    assert 20 < int(silent.sum()) < 180
    # a neuron that is not proved silent can be made to fire: the bound is attained
    assert float((highest[~silent] > -0.05).float().mean()) > 0.97


@pytest.mark.parametrize("name", NORMS)
def test_removing_changes_nothing_and_is_undone_bitwise(name: str) -> None:
    model = build(name)
    x = worst_inputs(model)
    before, state = model(x), copy.deepcopy(model.state_dict())
    receipt = lazy.compact_(model)
    (change,) = receipt.changes
    assert model[1].out_features == model[3].in_features == change.details["d_hidden"] < 200
    assert model[1].weight.shape[0] == 200 - change.details["removed"]
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    assert list(model.state_dict()) == list(state)
    twin = copy.deepcopy(model)
    for changed in (model, twin):
        lazy.restore_(changed, lazy.Receipt.from_json(receipt.to_json()))
        assert torch.equal(changed(x), before) and changed[1].out_features == 200
        assert all(torch.equal(a, b) for a, b in zip(changed.state_dict().values(), state.values(), strict=True))


def test_observed_removes_what_never_fired() -> None:
    model = nn.Sequential(nn.Linear(12, 60), nn.ReLU(), nn.Linear(60, 12)).eval()
    batches = [torch.randn(40, 12, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    model[0].bias.data -= 1.2
    fired = (model[0](torch.cat(batches)) > 0).any(0)
    assert 5 < int(fired.sum()) < 55
    before = model(batches[0])
    receipt = lazy.compact_(model, batches, mode="observed")
    assert receipt.changes[0].details["kept"] == fired.nonzero().flatten().tolist()
    torch.testing.assert_close(model(batches[0]), before, rtol=1e-5, atol=1e-5)


def test_a_block_without_any_firing_neuron_keeps_one() -> None:
    model = block(nn.LayerNorm(12), spread=0.0)
    model[1].bias.data -= 1e3
    x = torch.randn(5, 12)
    before = model(x)
    lazy.compact_(model)
    assert model[1].out_features == 1
    torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("name", ["opt", "t5", "nemotron", "encoder_layer", "switch"])
def test_architectures(name: str) -> None:
    known = KNOWN[name]
    model = known.model()
    with torch.no_grad():
        for found in lazy.find_blocks(model):
            if found.up.bias is not None:
                found.up.bias[:10] -= 1e3
            else:  # against the norm's output no bias helps: only a zero row is silent for all inputs
                found.up.weight[:10] = 0
        before = model(**known.batch)
        receipt = (
            lazy.compact_(model) if found.up.bias is not None else lazy.compact_(model, [known.batch], mode="observed")
        )
        after = model(**known.batch)
    removed = [c.details["removed"] for c in receipt.changes if c.action == "compacted"]
    assert removed and min(removed) >= 10
    first = [t if isinstance(t, torch.Tensor) else t[0] for t in (before, after)]
    torch.testing.assert_close(*first, rtol=1e-4, atol=1e-4)
    lazy.restore_(model, receipt)
    assert all(b.d_hidden == 48 for b in lazy.find_blocks(model))


def test_saved_and_loaded(tmp_path: Path) -> None:
    model, x = build("layer"), torch.randn(4, 12)
    receipt = lazy.compact_(model)
    model[3].weight.data *= 2
    lazy.save(model, tmp_path, receipt)
    again = build("layer")
    (new,) = lazy.load_(again, tmp_path)
    assert torch.equal(again(x), model(x))
    assert again[1].out_features == model[1].out_features
    lazy.restore_(again, new)
    assert again[1].out_features == 200
    narrow = block(nn.LayerNorm(12), hidden=50)
    with pytest.raises(CheckpointError, match="does not have"):
        lazy.load_(narrow, tmp_path)
    assert narrow[1].out_features == 50


def test_tied_weights_and_nothing_to_remove_are_said() -> None:
    full = block(nn.LayerNorm(12), spread=0.0)
    with pytest.raises(NoBlocksError, match="All of its neurons can fire"):
        lazy.compact_(full)
    tied = build("layer")
    tied.append(nn.Linear(12, 200))
    tied[4].weight = tied[1].weight
    with pytest.raises(NoBlocksError, match="are used elsewhere too"):
        lazy.compact_(tied)
    bare = nn.Sequential(nn.Linear(12, 60), nn.ReLU(), nn.Linear(60, 12))
    with pytest.raises(NoBlocksError, match="nothing bounds its input"):
        lazy.compact_(bare)
    with pytest.raises(ConfigError, match="needs batches"):
        lazy.compact_(bare, mode="observed")
    with pytest.raises(ConfigError, match="'proved' or 'observed'"):
        lazy.compact_(bare, mode="guessed")  # type: ignore[arg-type]


def test_other_norms_prove_nothing() -> None:
    model = block(nn.LayerNorm(12))
    (found,) = lazy.find_blocks(model)

    class Odd(RMSNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * x.tanh() * self.weight

    assert proved_silent(found, Odd(12)) is None
    gelu = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 60), nn.GELU(), nn.Linear(60, 12))
    (smooth,) = lazy.find_blocks(gelu)
    assert proved_silent(smooth, gelu[0]) is None
