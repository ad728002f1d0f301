"""How much of an attack's effect weights could have: closed forms, least squares, and whole models."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import lazyneuron as lazy
from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.explain import Attack, CoveringSums, cover_attack
from tests.explain.test_report import X, each_loss, model

G = torch.Generator().manual_seed(0)
K = torch.randn(7, 5, generator=G, dtype=torch.float64)
ROWS = torch.randn(40, 5, generator=G, dtype=torch.float64)


def covering(x: torch.Tensor, change: torch.Tensor, weight: torch.Tensor = K):  # type: ignore[no-untyped-def]
    sums = CoveringSums(weight)
    for part in range(2):
        sums.add(x[part::2], change[part::2])
    return sums.result()


def test_a_stretched_input_is_covered_by_stretched_weights() -> None:
    found = covering(ROWS, 0.3 * ROWS @ K.t())
    assert (found.tokens, found.width, found.chance) == (40, 5, 5 / 40)
    assert found.covered == pytest.approx(1.0) and found.shared_norm == pytest.approx(0.3)


def test_against_least_squares() -> None:
    change = torch.randn(40, 7, generator=G, dtype=torch.float64)
    wanted = torch.linalg.lstsq(ROWS, change).solution
    found = covering(ROWS, change)
    left = float((change - ROWS @ wanted).square().sum())
    assert found.covered == pytest.approx(1 - left / float(change.square().sum()), rel=1e-9)
    assert found.shared_norm == pytest.approx(float(wanted.norm() / K.norm()), rel=1e-9)
    own = torch.stack([torch.outer(c, x) / x.square().sum() for c, x in zip(change, ROWS, strict=True)])
    torch.testing.assert_close(torch.einsum("tjd,td->tj", own, ROWS), change)  # these copies repeat the change
    assert found.token_norm == pytest.approx(float(own.square().sum((1, 2)).mean().sqrt() / K.norm()), rel=1e-9)


def test_few_tokens_are_always_covered_and_what_is_orthogonal_never() -> None:
    change = torch.randn(4, 7, generator=G, dtype=torch.float64)
    assert covering(ROWS[:4], change).covered == pytest.approx(1.0)
    centred = ROWS - ROWS.mean(0)
    found = covering(centred, torch.ones(40, 7, dtype=torch.float64))
    assert found.covered == pytest.approx(0.0, abs=1e-20) and found.shared_norm == pytest.approx(0.0, abs=1e-12)


def test_an_unrelated_change_is_covered_by_chance_alone() -> None:
    change = torch.randn(4000, 7, generator=G, dtype=torch.float64)
    x = torch.randn(4000, 5, generator=G, dtype=torch.float64)
    found = covering(x, change)  # a Beta law with mean 5 / 4000 and deviation below 1e-3
    assert found.chance == 5 / 4000 and abs(found.covered - found.chance) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.half], ids=str)
@pytest.mark.parametrize("width", [6, 64, 300])
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_what_rounding_alone_sees_is_no_direction(width: int, dtype: torch.dtype, mean: float) -> None:
    """Behind a LayerNorm one direction is empty in exact numbers and full of rounding in all others."""
    dice = torch.Generator().manual_seed(width)
    tokens = 4 * width
    raw = (torch.randn(tokens, width, generator=dice) + mean).to(dtype)
    exact, x = (F.layer_norm(raw.to(kind), (width,)) for kind in (torch.float64, dtype))
    change, weight = (torch.randn(n, 5, generator=dice, dtype=torch.float64) for n in (tokens, width))
    wanted = torch.linalg.pinv(exact, rtol=1e-9) @ change
    for inputs, rel in ((exact, 1e-9), (x, 100 * torch.finfo(dtype).eps)):
        found = covering(inputs, change, weight.t())
        assert found.chance == (width - 1) / tokens
        assert found.shared_norm == pytest.approx(float(wanted.norm() / weight.norm()), rel=rel)
        share = float((exact @ wanted).square().sum() / change.square().sum())
        assert found.covered == pytest.approx(share, rel=rel)


@pytest.mark.parametrize(
    ("dtype", "small"), [(torch.float64, 1e-6), (torch.float32, 1e-5), (torch.half, 4e-3), (torch.bfloat16, 0.03)]
)
def test_small_directions_above_rounding_are_kept(dtype: torch.dtype, small: float) -> None:
    x = torch.randn(400, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x[:, 0] *= small
    change = x[:, :1].to(dtype).double() @ torch.ones(1, 7, dtype=torch.float64)  # in this direction alone
    weight = torch.ones(7, 64, dtype=torch.float64)
    found = covering(x.to(dtype), change, weight)
    assert found.chance == 64 / 400 and found.covered == pytest.approx(1.0, rel=1e-3)
    assert found.shared_norm == pytest.approx(1 / 8, rel=1e-2)  # a row of ones by an 8 x 8 times 7 of ones


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_sums_take_finite_tensors_and_stay_as_they_were(bad: float) -> None:
    sums = CoveringSums(K)
    sums.add(ROWS, ROWS @ K.t())
    before = sums.result()
    for x, change in ((ROWS * bad, ROWS @ K.t()), (ROWS, ROWS @ K.t() * bad), ("text", ROWS)):
        with pytest.raises(DataError, match="must be"):
            sums.add(x, change)  # type: ignore[arg-type]
    assert sums.result() == before


@pytest.mark.parametrize("gated", [False, True])
def test_attacks_on_the_input_against_two_forwards_by_hand(gated: bool) -> None:
    net = model(gated=gated)
    attack = Attack(eps=0.02)
    x = X.clone().requires_grad_()
    (g,) = torch.autograd.grad(each_loss(net(x), x).sum(), [x])
    for number, found in enumerate(cover_attack(net, [X[:1], X[1:]], attack, loss=each_loss)):
        layer = net[number]
        clean, moved = (layer.norm(net[:number](t)).detach().reshape(-1, 6) for t in (X, X + 0.02 * g.sign()))
        first = layer.up if layer.gate is None else layer.gate
        change = (moved - clean) @ first.weight.detach().t()
        wanted = torch.linalg.lstsq(clean, change).solution
        left = float((change - clean @ wanted).square().sum())
        assert found.covered == pytest.approx(1 - left / float(change.square().sum()), rel=1e-7)
        assert found.tokens == 12 and 0 < found.covered < 1
    assert [one.place for one in cover_attack(net, [X], attack, loss=each_loss)] == [
        block.name for block in lazy.find_blocks(net)
    ]


def test_attacks_on_features_move_each_block_by_the_bound() -> None:
    net = model()
    eps = 1e-3
    (found, _) = cover_attack(net, [X], Attack(eps=eps, norm="l2"), loss=each_loss, features=True)
    y = net[0].norm(X).detach().requires_grad_()
    z = X + net[0].down(net[0].act(net[0].up(y)))
    (g,) = torch.autograd.grad(each_loss(net[1:](z), X).sum(), [y])
    moved = eps * (g / g.norm(dim=-1, keepdim=True)).reshape(-1, 6)
    change, weight = moved @ net[0].up.weight.detach().t(), net[0].up.weight.detach()
    own = change.square().sum(-1) / y.detach().reshape(-1, 6).square().sum(-1)
    assert found.token_norm == pytest.approx(float(own.mean().sqrt() / weight.norm()), rel=1e-6)


def test_what_cannot_be_covered_is_said() -> None:
    still = cover_attack(model(), [X], Attack(eps=0.0), loss=each_loss)
    assert all(math.isnan(one.covered) and one.token_norm == 0 for one in still)
    with pytest.raises(DataError, match="no batches"):
        cover_attack(model(), [], Attack(eps=0.1), loss=each_loss)
    with pytest.raises(ShapeError, match="changes of outputs"):
        CoveringSums(K).add(ROWS, ROWS)
