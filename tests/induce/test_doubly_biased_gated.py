"""The doubly biased recipe on gated blocks, on norms that store their scale less 1, and its noise."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.accelerate.machine import costs
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.core.undo import restore_
from lazyneuron.induce import DoublyBiased, TokenWeightNoise, ZerothBias, plan, project_, sparsify_
from lazyneuron.save import load_, save
from tests.accelerate.conftest import made_up
from tests.blocks.architectures import KNOWN, GatedSpread
from tests.induce.test_doubly_biased import Block, outputs, tokens


class Gated(nn.Module):
    """A pre-norm gated block as Llama has it."""

    def __init__(self, *, merged: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.RMSNorm(6)
        self.mlp = Merged() if merged else Mlp()
        nn.init.uniform_(self.norm.weight, -2, 2)

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 20), nn.Linear(6, 20), nn.Linear(20, 6)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.down(self.act(self.gate(x)) * self.up(x))


class Merged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both, self.down, self.act = nn.Linear(6, 40), nn.Linear(20, 6), nn.SiLU()

    def forward(self, x):
        gate, up = self.both(x).chunk(2, dim=-1)
        return self.down(self.act(gate) * up)


def jsrelu(p: torch.Tensor) -> torch.Tensor:
    return torch.where(p > 0, ((p + 1) ** 2 - 1) / 2, 0.0)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("position", ["input", "output"])
def test_a_gated_block_computes_what_the_parts_compute(merged, position):
    model, x = Gated(merged=merged), tokens()
    sparsify_(model, DoublyBiased(position=position, max_len=8, bound=None))
    (bias,) = [m for m in model.modules() if isinstance(m, ZerothBias)]
    nn.init.normal_(bias.bias)
    d = bias.bias[:5]
    y = model.norm(x) + (d if position == "input" else 0)
    gate, up = model.mlp.both(y).chunk(2, -1) if merged else (model.mlp.gate(y), model.mlp.up(y))
    z = model.mlp.down(jsrelu(gate) * up)
    torch.testing.assert_close(model(x), x + (z if position == "input" else z + d))


def test_a_spread_gated_block_gets_the_bias_on_both_layers():
    model, x = GatedSpread().eval(), torch.randn(2, 5, 32)
    receipt = sparsify_(model, DoublyBiased(max_len=8, bound=None))
    bias = model.norm.zeroth_bias.bias
    nn.init.normal_(bias)
    y = model.norm(x) + bias[:5]
    gate, up = (F.linear(y, part.weight, part.bias) for part in (model.w1, model.w3))
    torch.testing.assert_close(model(x), x + model.w2(jsrelu(gate) * up))
    with pytest.raises(NoBlocksError, match="has hooks"):
        accelerate_(model)
    restore_(model, receipt)
    assert isinstance(model.act, nn.SiLU)


def test_gemmas_norm_is_floored_on_its_true_scale():
    model = KNOWN["gemma"].model()
    sparsify_(model, DoublyBiased(norm_floor=1.25, bound=0.1))
    for layer in model.layers:
        norm = layer.post_attention_layernorm
        nn.init.constant_(norm.weight, -0.5)
        nn.init.constant_(norm.zeroth_bias.bias, 9.0)
    project_(model)
    for layer in model.layers:
        norm = layer.post_attention_layernorm
        assert torch.equal(norm.weight, torch.full_like(norm.weight, 0.25))
        torch.testing.assert_close(norm.zeroth_bias.bias, torch.full_like(norm.zeroth_bias.bias, 0.125))
    x = torch.randn(3, 32)
    norm = model.layers[0].post_attention_layernorm
    assert bool((norm(x).square().sum(-1) >= 1.25**2 * 32 * (1 - 1e-3)).all())


def test_noise_in_training_only():
    model, x = Block(), tokens()
    noisy, quiet = copy.deepcopy(model), copy.deepcopy(model)
    keys = list(model.state_dict())
    options = {"jsrelu": False, "zeroth_bias": False, "norm_floor": None}
    receipt = sparsify_(noisy, DoublyBiased(noise_rho=0.1, **options))
    assert (list(noisy.state_dict()), "noise of strength 0.1" in receipt.changes[0].reason) == (keys, True)
    assert torch.equal(noisy.eval()(x), quiet(x))
    quiet.mlp[0], quiet.mlp[2] = TokenWeightNoise(quiet.mlp[0], 0.1), TokenWeightNoise(quiet.mlp[2], 0.1)
    both = []
    for m in (noisy.train(), quiet.train()):
        torch.manual_seed(7)
        both.append(m(x))
    assert torch.equal(*both)
    assert not torch.equal(noisy(x), noisy.eval()(x))
    restore_(noisy, receipt)
    assert torch.equal(noisy.train()(x), model(x))


def test_sparse_execution_with_noise_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))
    model, known = KNOWN["llama"].model(), KNOWN["llama"]
    receipt = sparsify_(model, DoublyBiased(noise_rho=0.05))
    assert "noise of strength 0.05" in plan(KNOWN["llama"].model(), DoublyBiased(noise_rho=0.05)).changes[0].reason
    wanted = outputs(model, known.batch)
    save(model, tmp_path, receipt)
    made = accelerate_(model, impl="gather")
    assert [c.action for c in made.changes] == ["accelerated"] * known.count
    torch.testing.assert_close(outputs(model, known.batch), wanted, rtol=1e-4, atol=1e-4)
    model.train()
    assert not torch.equal(outputs(model, known.batch), outputs(model, known.batch))
    twin = KNOWN["llama"].model()
    load_(twin, tmp_path)
    assert torch.equal(outputs(twin, known.batch), wanted)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="noise_rho"):
            DoublyBiased(noise_rho=wrong)
