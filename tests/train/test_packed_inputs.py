"""Blocks whose input is made again from what the norm in front of them keeps, against torch's own gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lazyneuron as lazy
from lazyneuron.train import pack_activations_
from lazyneuron.train.packing.source import source_of
from tests.accelerate.comparison import check_close
from tests.kernels import needs_kernels
from tests.train.packing import HIDDEN, WIDTH, Gated, Transposed, at_density, kept_bytes, plain, step, tokens

NORMS = {
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "without bias": lambda: nn.LayerNorm(WIDTH, bias=False),
    "other epsilon": lambda: nn.LayerNorm(WIDTH, eps=1e-1),
    "rms norm": lambda: nn.RMSNorm(WIDTH, eps=1e-3),
    "rms norm, eps of the dtype": lambda: nn.RMSNorm(WIDTH),
}
BLOCKS = {
    "relu": lambda: plain(nn.ReLU()),
    "gated": Gated,
    "one layer": lambda: Gated(merged=True),
    "transposed": Transposed,
}


class Sublayer(nn.Module):
    """``r + mlp(norm(r))`` behind a layer of its own, so that ``r`` is no leaf."""

    def __init__(self, norm: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.before, self.norm, self.mlp = nn.Linear(WIDTH, WIDTH), norm, mlp
        self.between = lambda x: x

    def forward(self, x):
        r = self.before(x)
        return r + self.mlp(self.between(self.norm(r)))


def sublayer(norm: str = "layer norm", block: str = "relu") -> Sublayer:
    torch.manual_seed(0)
    model = Sublayer(NORMS[norm](), BLOCKS[block]()).train()
    with torch.no_grad():
        for p in model.norm.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def same(got, wanted):
    """The output bit for bit, gradients to rounding."""
    assert torch.equal(got[0], wanted[0])
    for one, other in zip(got[1], wanted[1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            check_close(one, other, length=400)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_are_the_dense_ones_and_the_input_is_not_kept(norm, block):
    model, x = sublayer(norm, block), tokens(3, 5)
    wanted = step(model, x)
    dense = kept_bytes(model, x)
    receipt = pack_activations_(model)
    assert [c.details.get("input_from") for c in receipt.changes] == ["norm"]
    same(step(model, x), wanted)
    same(step(copy.deepcopy(model), x), wanted)
    packed = kept_bytes(model, x)
    lazy.restore_(model, receipt)
    assert not any("forward" in m.__dict__ for m in model.modules())
    model.norm.register_forward_hook(lambda m, a, y: y.clone())  # nobody knows where this tensor came from
    pack_activations_(model)
    assert kept_bytes(model, x) - packed == 15 * WIDTH * 4 and packed < dense


def test_at_density_a_tenth_a_layer_keeps_a_tenth_of_what_its_block_kept():
    """All that the model holds more than with the norm alone: the block's input too."""
    model, x = sublayer(), tokens(200)
    with torch.no_grad():
        at_density(model.mlp[0], model.norm(model.before(x)), 0.1)
    alone = copy.deepcopy(model)
    alone.mlp = nn.Identity()
    norm = kept_bytes(alone, x)
    dense = kept_bytes(model, x) - norm
    assert dense == 200 * (WIDTH + HIDDEN) * 4
    pack_activations_(model)
    packed = kept_bytes(model, x) - norm
    assert packed == 200 * ((HIDDEN + 7) // 8) + 20 * HIDDEN * 4
    assert packed * 5 <= dense


@pytest.mark.parametrize("norm", NORMS)
def test_the_input_is_made_again_bit_for_bit(norm):
    model, r, seen = sublayer(norm), tokens(3, 5).requires_grad_(), []
    pack_activations_(model)
    model.between = lambda x: seen.append(x) or x
    model(r)
    source = source_of(seen[0])
    assert torch.equal(source.again(source.input), seen[0])


@needs_kernels
def test_with_sparse_products():
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
    model, x = Sublayer(nn.LayerNorm(WIDTH), mlp), tokens(3, 5)
    wanted, dense = step(model, x), kept_bytes(model, x)
    pack_activations_(model, arithmetic="sparse")
    got = step(model, x)
    check_close(got[0], wanted[0], length=400)
    for one, other in zip(got[1], wanted[1], strict=True):
        check_close(one, other, length=400)
    assert kept_bytes(model, x) <= dense - 15 * WIDTH * 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    model, x = sublayer().to(dtype), tokens(3, 5).to(dtype)
    wanted = step(model, x)
    pack_activations_(model)
    same(step(model, x), wanted)


def test_under_autocast():
    model, x = sublayer(), tokens(3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = step(model, x)
        pack_activations_(model)
        got = step(model, x)
    assert torch.equal(got[0], wanted[0])
    for one, other in zip(got[1], wanted[1], strict=True):  # both round each gradient to bfloat16 once
        check_close(one.bfloat16(), other.bfloat16(), length=400, roundings=2)


@pytest.mark.parametrize("how", ["written", "other tensor", "hook"])
def test_what_becomes_of_the_norms_output_counts(how):
    model, x = sublayer(), tokens(3, 5)
    dense = copy.deepcopy(model)
    pack_activations_(model)
    for one in (model, dense):
        if how == "written":
            one.between = lambda x: x.mul_(1.5)
        elif how == "other tensor":
            one.between = lambda x: x * 1.5
        else:
            one.norm.register_forward_hook(lambda m, a, y: y * 1.5)
    same(step(model, x), step(dense, x))


def test_the_norm_as_it_was_in_the_forward_counts():
    """As where its parameters are sharded again, or trained, before this layer's backward."""
    gradients = []
    for packs in (False, True):
        model, x = sublayer(), tokens(3, 5)
        if packs:
            pack_activations_(model)
        y = model(x)
        with torch.no_grad():
            model.norm.weight.mul_(7)
            model.norm.bias.add_(3)
        gradients.append(torch.autograd.grad(y.square().sum(), model.mlp[0].weight)[0])
    check_close(gradients[1], gradients[0], length=400)


def test_a_frozen_up_keeps_no_input_and_frozen_norms_change_nothing():
    model, x = sublayer(), tokens(3, 5)
    model.mlp[0].weight.requires_grad_(False)
    wanted, dense = step(model, x), kept_bytes(model, x)
    receipt = pack_activations_(model)
    same(step(model, x), wanted)
    assert kept_bytes(model, x) < dense
    lazy.restore_(model, receipt)
    model = sublayer()
    for p in [*model.norm.parameters(), *model.before.parameters()]:
        p.requires_grad_(False)
    wanted = step(model, x)
    pack_activations_(model)
    same(step(model, x), wanted)


@pytest.mark.parametrize("part", ["all", "mlp"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_under_checkpointing(reentrant, part):
    model, x = sublayer(), tokens(3, 5)

    def run(x):
        if part == "all":
            return checkpoint(model, x, use_reentrant=reentrant)
        r = model.before(x)
        return r + checkpoint(model.mlp, model.norm(r), use_reentrant=reentrant)

    run.parameters = model.parameters
    wanted = step(run, x)
    pack_activations_(model)
    same(step(run, x), wanted)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo looks there, and hides the warning
def test_under_compile():
    model, x = sublayer(), tokens(3, 5)
    wanted = step(model, x)
    pack_activations_(model)
    got = step(torch.compile(model, backend="aot_eager"), x)
    check_close(got[0], wanted[0], length=400)
    for one, other in zip(got[1], wanted[1], strict=True):
        check_close(one, other, length=400)


def test_a_norm_of_other_code_leaves_the_input_as_it_is():
    class Scaled(nn.LayerNorm):
        def forward(self, x):
            return 2 * super().forward(x)

    torch.manual_seed(0)
    model, x = Sublayer(Scaled(WIDTH), plain(nn.ReLU())), tokens(3, 5)
    wanted = step(model, x)
    (change,) = pack_activations_(model).changes
    assert "input_from" not in change.details
    same(step(model, x), wanted)
