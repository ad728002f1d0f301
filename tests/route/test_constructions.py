"""Every system that a data-dependent sparse model is said to express, against that system computed on its own."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.core.errors import AssumptionError, ConfigError, ShapeError
from lazyneuron.route import (
    DSM,
    EuclideanLSH,
    GlobalGates,
    HyperplaneLSH,
    RandomHash,
    Router,
    ScalingBlocks,
    SparseStack,
    Switch,
    TopK,
    euclidean_lsh_model,
    gated_layer,
    interpolation,
    lsh_model,
    nearest_neighbour_regression,
    random_hash_layer,
    scaling_layer,
    switch_layer,
    top_k_layer,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_interpolation_is_exact_at_the_points() -> None:
    points, values = draw(40, 5), draw(40, 2, seed=1)
    model = interpolation(points, values)
    torch.testing.assert_close(model(points), values)
    assert torch.equal(model.router.mask(points), torch.eye(40, dtype=torch.float64))
    with pytest.raises(AssumptionError, match="all different and not zero"):
        interpolation(torch.cat([points, points[:1]]), torch.cat([values, values[:1]]))
    with pytest.raises(AssumptionError, match="all different and not zero"):
        interpolation(torch.zeros(1, 5), torch.zeros(1))
    with pytest.raises(ShapeError, match="as many values"):
        interpolation(points, values[:3])


@pytest.mark.parametrize("shift", [1e3, 1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolation_is_exact_far_from_the_origin(shift: float, dtype: torch.dtype) -> None:
    points, values = (draw(40, 5) + shift).to(dtype), draw(40, 2, seed=1).to(dtype)
    model = interpolation(points, values)
    assert torch.equal(model.router.mask(points), torch.eye(40, dtype=dtype))
    eps = torch.finfo(dtype).eps  # one product over 5 entries and one division
    torch.testing.assert_close(model(points).detach(), values, rtol=8 * eps, atol=0.0)


def test_interpolation_tells_neighbours_apart_beside_distant_points() -> None:
    near = torch.tensor([[1.0, 1.0]]) + torch.arange(4)[:, None] * torch.finfo(torch.float32).eps
    points = torch.cat([near, torch.tensor([[-3e4, 5e4]])])  # no one centre helps here
    values = torch.arange(5.0)
    torch.testing.assert_close(interpolation(points, values)(points)[:, 0].detach(), values, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("scale", [1e-22, 1e20])
def test_interpolation_refuses_what_its_dtype_cannot_hold(scale: float) -> None:
    points, values = (draw(6, 3) * scale).float(), draw(6, seed=1).float()
    with pytest.raises(AssumptionError, match=r"beyond the range of torch\.float32"):
        interpolation(points, values)
    wide = interpolation(points.double(), values.double())
    torch.testing.assert_close(wide(points.double())[:, 0], values.double())


def test_close_unit_vectors_keep_their_own_values() -> None:
    angles = torch.arange(20.0, dtype=torch.float64) * 1e-5  # inner products differ by 5e-11
    points = torch.stack([angles.cos(), angles.sin()], 1).float()
    values = torch.arange(20.0)
    assert nearest_neighbour_regression(points, values, neighbours=1)(points)[:, 0].tolist() == values.tolist()


def test_nearest_neighbours_by_brute_force() -> None:
    points, x = F.normalize(draw(60, 4), dim=-1), F.normalize(draw(25, 4, seed=2), dim=-1)
    values = draw(60, seed=3)
    model = nearest_neighbour_regression(points, values, neighbours=5)
    for row, got in zip(x, model(x)[:, 0].detach(), strict=True):
        near = sorted(range(60), key=lambda k: float((points[k] - row).norm()))[:5]
        assert float(got) == pytest.approx(float(values[near].mean()))
    with pytest.raises(AssumptionError, match="unit vectors"):
        nearest_neighbour_regression(2 * points, values, neighbours=5)


@pytest.mark.parametrize("gated", [True, False])
def test_a_switch_layer_expert_by_expert(gated: bool) -> None:
    routing, bottom, top = draw(6, 5), draw(6, 3, 5, seed=1), draw(6, 2, 3, seed=2)
    x = draw(30, 5, seed=3)
    model = switch_layer(routing, bottom, top, gated=gated)
    assert model.sizes == (5, 3, 18)
    for row, got in zip(x, model(x), strict=True):
        chances = (routing @ row).softmax(0)
        e = int(chances.argmax())
        want = top[e] @ (bottom[e] @ row).relu() * (chances[e] if gated else 1.0)
        torch.testing.assert_close(got, want)


def test_the_balance_loss_by_hand() -> None:
    router = Switch(1, 2).double()
    router.weight.data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    router(torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64))
    p = [1 / (1 + math.exp(-2 * v)) for v in (1.0, 2.0, -1.0)]
    first = sum(p) / 3
    assert float(router.balance_loss.detach()) == pytest.approx(2 * (2 / 3 * first + 1 / 3 * (1 - first)))


def test_a_scaling_layer_block_by_block() -> None:
    scores, bottom, top = draw(12, 5), draw(12, 5, seed=1), draw(3, 12, seed=2)
    x = draw(20, 5, seed=3)
    model = scaling_layer(scores, bottom, top, blocks=4).eval()
    for row, got in zip(x, model(x), strict=True):
        want = torch.zeros(3, dtype=torch.float64)
        for block in range(4):
            units = range(3 * block, 3 * block + 3)
            best = max(units, key=lambda u: float(scores[u] @ row))
            want = want + top[:, best] * (bottom[best] @ row).relu()
        torch.testing.assert_close(got, want)
    model.train()
    torch.testing.assert_close(model(x), model.eval()(x))  # straight through: the value stays


def test_the_scores_of_blocks_get_a_gradient() -> None:
    router = ScalingBlocks(5, 12, blocks=4, rank=2).double()
    (router(draw(7, 5)).weights * draw(7, 4, seed=1)).sum().backward()
    assert router.weight.grad is not None and bool((router.weight.grad != 0).any())


def test_an_lsh_model_is_a_sum_over_tables_of_a_constant_a_bucket() -> None:
    model = lsh_model(3, bits=4, tables=5, outputs=2).double()
    model.top.data = draw(2, 5 << 4)
    router = model.router
    assert isinstance(router, HyperplaneLSH) and model.sizes == (3, 5, 80)
    x = draw(50, 3, seed=1)
    for row, got in zip(x, model(x), strict=True):
        want = torch.zeros(2, dtype=torch.float64)
        for table in range(5):
            signs = [
                float(router.directions[:, 4 * table + k] @ row + router.offsets[4 * table + k]) > 0 for k in range(4)
            ]
            want = want + model.top[:, table * 16 + sum(s << k for k, s in enumerate(signs))].detach()
        torch.testing.assert_close(got, want)


def test_euclidean_buckets_are_the_floor_of_the_formula() -> None:
    router = EuclideanLSH(3, 0.7, hashes=2, tables=2, capacity=500, seed=4)
    x = draw(200, 3)
    indices, weights = router(x)
    assert bool((weights == 1).all())
    for number, affine in enumerate(router.hashes):
        names = [
            tuple(
                math.floor(float((affine.directions[:, k] @ row + affine.offsets[k]) / affine.width)) for k in range(2)
            )
            for row in x
        ]
        together = {}
        for name, unit in zip(names, indices[:, number].tolist(), strict=True):
            assert together.setdefault(name, unit) == unit
        assert len(set(together.values())) == len(together) == len(router.tables[number])
        assert min(together.values()) >= 500 * number and max(together.values()) < 500 * (number + 1)


def test_unseen_buckets_and_full_tables_have_no_unit() -> None:
    model = euclidean_lsh_model(2, bucket_width=0.5, capacity=8).double()
    model.top.data.fill_(3.0)
    x = draw(100, 2)
    model.router(x)
    far = torch.full((4, 2), 50.0, dtype=torch.float64)
    model.eval()
    assert torch.equal(model(far), torch.zeros(4, 1, dtype=torch.float64))
    _, weights = model.router(x)
    assert 0 < float(weights.mean()) < 1 and len(model.router.tables[0]) == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_euclidean_buckets_survive_state_dict_copy_and_dtype(dtype: torch.dtype) -> None:
    model = euclidean_lsh_model(2, bucket_width=0.5, capacity=64, tables=2)
    x = draw(100, 2).float()
    before = model.router(x)
    fresh = euclidean_lsh_model(2, bucket_width=9.0, capacity=64, tables=2, seed=7).to(dtype)
    fresh.load_state_dict(model.to(dtype).state_dict())
    for other in (fresh, copy.deepcopy(model)):
        after = other.eval().router(x)
        assert torch.equal(after.indices, before.indices) and torch.equal(after.weights, before.weights)


def test_random_hash_is_uniform_and_knows_no_nearness() -> None:
    layer = random_hash_layer(4, 64, active=4)
    router = layer.router
    x = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0))
    indices = router(x).indices
    assert torch.equal(indices // 16, torch.arange(4).expand(20000, 4))
    counts = torch.bincount(indices.flatten(), minlength=64).double()
    chi2 = float(((counts - 1250) ** 2 / 1250).sum())
    assert chi2 < 110  # 60 degrees of freedom: above 110 once in 10^4
    moved = router(x + 1e-6).indices
    same = float((moved == indices)[(x + 1e-6 != x).all(1)].double().mean())
    assert same == pytest.approx(1 / 16, abs=0.01)
    assert torch.equal(router(x).indices, indices)
    assert torch.equal(router(torch.zeros(1, 4)).indices, router(-torch.zeros(1, 4)).indices)


def test_top_k_keeps_the_largest() -> None:
    layer = top_k_layer(6, 40, active=7).double()
    layer.top.data = draw(1, 40)
    x = draw(30, 6, seed=1)
    z = x @ layer.bottom.t()
    cut = z.sort(dim=-1, descending=True).values[:, 6:7]
    want = ((z >= cut) * z.relu()) @ layer.top.detach().t()
    torch.testing.assert_close(layer(x).detach(), want)


def test_composition_and_shared_gates() -> None:
    gates = GlobalGates(5, 12, gates=4, open_gates=2).double()
    first = gated_layer(gates, draw(12, 5), draw(5, 12, seed=1))
    second = gated_layer(gates, draw(12, 5, seed=2), draw(3, 12, seed=3))
    stack = SparseStack([first, second], gates=gates, activation="relu")
    x = draw(20, 5, seed=4)
    for row, got in zip(x, stack(x), strict=True):
        opened = (gates.directions @ row).topk(2).indices.tolist()
        m = torch.tensor([float(u % 4 in opened) for u in range(12)], dtype=torch.float64)
        hidden = first.top @ (m * (first.bottom @ row).relu())
        torch.testing.assert_close(got, second.top @ (m * (second.bottom @ hidden.relu()).relu()))
    own = SparseStack([first, second])
    torch.testing.assert_close(own(x), second(first(x)))
    with pytest.raises(ConfigError, match="but the next takes 5"):
        SparseStack([second, second])
    with pytest.raises(ConfigError, match="at least one layer"):
        SparseStack([])


ROUTERS: list[Router] = [
    TopK(5, 24, active=6),
    RandomHash(5, 24, active=6),
    ScalingBlocks(5, 24, blocks=6),
    Switch(5, 4, expert_units=6),
    HyperplaneLSH(5, 2, tables=6),
    GlobalGates(5, 24, gates=4),
]


@pytest.mark.parametrize("router", ROUTERS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 3)])
def test_the_sparse_forward_is_the_masked_dense_one(router: Router, shape: tuple[int, ...]) -> None:
    router = copy.deepcopy(router).double().eval()
    model = DSM(router, draw(3, 24), bottom=draw(24, 5, seed=1), bias=draw(24, seed=2), output_bias=draw(3, seed=3))
    x = draw(*shape, 5, seed=4)
    torch.testing.assert_close(model(x), model.dense_forward(x))
    route = router(x)
    assert route.indices.shape == route.weights.shape == (*shape, 6)
    assert bool((route.indices.sort(-1).values.diff(dim=-1) > 0).all())  # no unit twice
    assert model(x).shape == (*shape, 3)


def test_gradients_reach_only_what_answered() -> None:
    layer = top_k_layer(6, 40, active=7).double()
    x = draw(1, 6)
    layer(x).sum().backward()
    active = set(layer.router(x).indices[0].tolist())
    assert {k for k in range(40) if float(layer.top.grad[0, k]) != 0} <= active
    assert layer.flops() == 2 * 7 * 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(5, 4, active=5), "5 active of 4"),
        (lambda: HyperplaneLSH(5, 31), "1 to 30 bits, got 31"),
        (lambda: RandomHash(5, 10, active=3), "got 10 and 3"),
        (lambda: ScalingBlocks(5, 10, blocks=3), "got 10 and 3"),
        (lambda: GlobalGates(5, 10, gates=4), "got width 10, 4 gates"),
        (lambda: DSM(TopK(5, 4, active=1), torch.zeros(1, 4)), "needs the rows of `bottom`"),
        (lambda: DSM(TopK(5, 4, active=1), torch.zeros(1, 4), activation="sine"), "got 'sine'"),
        (lambda: DSM(TopK(5, 4, active=1), torch.zeros(1, 3), activation="one"), "`top` has 3 units"),
        (lambda: TopK(5, 4, active=1)(torch.zeros(2, 6)), "inputs of length 5, got shape \\(2, 6\\)"),
        (lambda: EuclideanLSH(5, 0.0), "positive number, got 0.0"),
    ],
)
def test_bad_input(make, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ConfigError, ShapeError), match=message):
        make()


def test_all_pairs_of_widths_and_tables_are_told_apart() -> None:
    for bits, tables in itertools.product((1, 3), (1, 2)):
        router = HyperplaneLSH(2, bits, tables=tables)
        assert (router.width, router.active) == (tables * 2**bits, tables)
