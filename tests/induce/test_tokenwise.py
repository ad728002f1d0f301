"""Blocks whose activation looks at the whole token, or whose up is rectified."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.blocks import Activation, find_blocks
from lazyneuron.core.errors import ConfigError, NoBlocksError, ShapeError
from lazyneuron.core.undo import restore_
from lazyneuron.induce import (
    BlockTopK,
    DoublyBiased,
    DReLU,
    KeepTop,
    Relufy,
    StatisticalTopK,
    Thresholded,
    TopK,
    compact_,
    plan,
    sparsify_,
)
from lazyneuron.measure import measure
from lazyneuron.save import load_, save
from tests.blocks.architectures import KNOWN
from tests.induce.networks import gelu_mlp, inputs
from tests.induce.test_doubly_biased import Block, outputs
from tests.induce.test_doubly_biased_gated import Gated

MODULES = [TopK(3), TopK(12), StatisticalTopK(0.2), StatisticalTopK(0.5), BlockTopK(2, 4)]


@pytest.mark.parametrize("module", MODULES, ids=repr)
@pytest.mark.parametrize("gated", [False, True])
def test_found_measured_and_refused(module, gated):
    if gated:
        model = Gated()
        model.mlp.act = module
    else:
        model = nn.Sequential(nn.Linear(6, 20), module, nn.Linear(20, 6)).eval()
    (block,) = find_blocks(model)
    assert block.activation == module.activation_spec()
    assert block.refusal is None
    seen = []
    handle = block.first.module.register_forward_hook(lambda _, __, z: seen.append(module(z)))
    x = torch.randn(8, 5, 6, generator=torch.Generator().manual_seed(0))
    density = measure(model, [x], blocks=[block]).blocks[0].density
    handle.remove()
    assert density == pytest.approx((torch.cat(seen) != 0).float().mean().item())
    with pytest.raises(NoBlocksError, match="depends on the whole token"):
        accelerate_(model)
    with pytest.raises(NoBlocksError, match="depends on all of its neurons"):
        compact_(model, [x], mode="observed")


@pytest.mark.parametrize("name", ["bert", "t5", "llama", "gpt2", "t5_gated"])
def test_found_in_architectures_and_twice_is_an_error(name):
    known = KNOWN[name]
    model = known.model()
    sparsify_(model, KeepTop(density=0.1))
    assert [b.activation.kind for b in find_blocks(model)] == ["top_k"] * known.count
    with pytest.raises(NoBlocksError, match="already top_k"):
        sparsify_(model, KeepTop(density=0.1))


def test_block_topk_against_brute_force():
    x = inputs(rows=40, d=12).requires_grad_()
    y = BlockTopK(2, 3)(x)
    for row, got in zip(x.detach(), y.detach(), strict=True):
        groups = F.relu(row).reshape(4, 3)
        best = sorted(range(4), key=lambda g: -float(groups[g].square().sum()))[:2]
        wanted = torch.stack([groups[g] if g in best else torch.zeros(3) for g in range(4)]).flatten()
        assert torch.equal(got, wanted)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], (x > 0).float())
    plain = BlockTopK(2, 3, straight_through=False)(x)
    assert torch.equal(torch.autograd.grad(plain.sum(), x)[0], (plain > 0).float())
    with pytest.raises(ShapeError, match="divides them"):
        BlockTopK(1, 5)(x)
    for wrong in ((0, 2), (2, 0), (1.5, 2)):
        with pytest.raises(ConfigError, match="whole numbers"):
            BlockTopK(*wrong)


def test_groups_in_the_recipe():
    model = gelu_mlp()
    sparsify_(model, KeepTop(density=0.25, group=4))
    assert isinstance(model[0][1], BlockTopK)
    assert (model[0][1].k, model[0][1].size) == (2, 4)
    assert {c.reason for c in plan(gelu_mlp(), KeepTop(density=0.5, group=5)).changes} == {
        "Its 24 neurons do not divide into groups of 5."
    }
    with pytest.raises(ConfigError, match="group"):
        KeepTop(density=0.5, group=2, statistical=True)


def test_thresholded_gradients():
    x = torch.tensor([-1.0, -0.05, 0.05, 1.0], dtype=torch.float64, requires_grad=True)
    smooth = torch.autograd.grad(F.silu(x).sum(), x)[0]
    for straight, wanted in ((False, smooth * torch.tensor([1.0, 0, 0, 1])), (True, smooth)):
        y = Thresholded("silu", 0.1, straight_through=straight)(x)
        assert torch.equal(y.detach(), torch.where(F.silu(x).abs() > 0.1, F.silu(x), 0.0).detach())
        torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], wanted)
    with pytest.raises(ConfigError, match="Unknown activation"):
        Thresholded("mish")


@pytest.mark.parametrize("merged", [False, True])
def test_drelu_computes_both_factors_and_is_executed(merged, tmp_path):
    model, x = Gated(merged=merged), torch.randn(4, 5, 6)
    before = model(x)
    config = Relufy(rectify_up=True)
    assert Relufy.from_data(json.loads(json.dumps(config.to_data()))) == config
    receipt = sparsify_(model, config)
    y = model.norm(x)
    sites = (model.mlp.both,) if merged else (model.mlp.gate, model.mlp.up)
    factors = torch.cat([F.linear(y, s.weight, s.bias) for s in sites], -1).chunk(2, -1)
    h = DReLU()(*factors)
    torch.testing.assert_close(model(x), x + model.mlp.down(h))
    (block,) = find_blocks(model)
    assert (block.activation, block.rectifies_up) == (Activation("relu"), True)
    torch.testing.assert_close(block.hidden(y), h)
    assert measure(model, [x]).blocks[0].density == pytest.approx((h != 0).float().mean().item())
    fast = copy.deepcopy(model).eval()
    quick = accelerate_(fast, impl="native")
    counts = fast.mlp.__dict__["forward"].run.counts
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-6)
    assert counts.tolist()[1:] == [int((h != 0).sum()), 20, 1]  # fired: both factors are positive
    restore_(fast, quick)
    assert torch.equal(fast(x), model(x))
    with pytest.raises(NoBlocksError, match="already relu"):
        sparsify_(model, config)
    save(model, tmp_path, receipt)
    twin = Gated(merged=merged)
    load_(twin, tmp_path)
    assert torch.equal(twin(x), model(x))
    restore_(model, receipt)
    assert torch.equal(model(x), before)


def test_drelu_needs_a_gate():
    with pytest.raises(NoBlocksError, match="not gated"):
        sparsify_(Block(), Relufy(rectify_up=True))
    known = KNOWN["llama"]
    model = known.model()
    before = outputs(model, known.batch)
    sparsify_(model, Relufy(rectify_up=True))
    assert not torch.allclose(outputs(model, known.batch), before)


def test_a_zeroth_bias_behind_the_norm_takes_the_proof_away():
    model = Block()
    with torch.no_grad():
        model.mlp[0].bias[:10] = -100.0
    sparsify_(model, DoublyBiased(max_len=5))
    with pytest.raises(NoBlocksError, match="zeroth bias"):
        compact_(model)
