"""Layers: values by hand, gradients by autograd of the dense form, and models that keep working around them."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.core.errors import CheckpointError, ConfigError, DataError, NoBlocksError
from lazyneuron.route import EuclideanLSH, HashedOutput, HyperplaneLSH, RoutedFFN, RouteFFN, SparseLayer


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (5, 3), (0,)])
def test_a_sparse_layer_is_a_masked_sum(degree: int, sparse: bool, shape: tuple[int, ...]) -> None:
    layer = SparseLayer(HyperplaneLSH(4, 3, tables=2), 5, degree=degree, sparse=sparse).double()
    layer.table.data = draw(*layer.table.shape).double()
    x = draw(*shape, 4, seed=1).double().requires_grad_()
    if not shape:
        x = draw(1, 4, seed=1).double().requires_grad_()
    mask = layer.router.mask(x)
    rows = layer.table.detach().clone().requires_grad_()
    held = rows.reshape(16, 5, -1)
    want = torch.einsum("...t,to->...o", mask, held[:, :, 0])
    terms = [c for k in range(1, degree + 1) for c in itertools.combinations_with_replacement(range(4), k)]
    assert held.shape[2] == 1 + len(terms)
    for place, chosen in enumerate(terms, start=1):
        product = torch.stack([x[..., j] for j in chosen]).prod(0)
        want = want + torch.einsum("...t,to->...o", mask, held[:, :, place]) * product[..., None]
    got = layer(x)
    torch.testing.assert_close(got, want)
    upstream = draw(*got.shape, seed=2).double()
    (got * upstream).sum().backward()
    gradient = torch.autograd.grad((want * upstream).sum(), rows)[0]
    assert layer.table.grad is not None and layer.table.grad.is_sparse == sparse
    torch.testing.assert_close(layer.table.grad.to_dense(), gradient)


def test_only_touched_rows_get_optimiser_state() -> None:
    layer = SparseLayer(HyperplaneLSH(4, 8), 2)
    optimizer = torch.optim.SparseAdam(layer.parameters(), lr=0.1)
    x = draw(3, 4)
    layer(x).sum().backward()
    optimizer.step()
    used = set(layer.router(x).indices.flatten().tolist())
    assert set(layer.table.detach().abs().sum(1).nonzero().flatten().tolist()) == used
    moments = optimizer.state[layer.table]["exp_avg"]
    assert set(moments.abs().sum(1).nonzero().flatten().tolist()) == used


def test_a_growing_layer_learns_and_survives_its_state_dict() -> None:
    x = 2 * torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) - 1
    y = (x[:, :1] * 3).sin() + x[:, 1:].abs()
    layer = SparseLayer(EuclideanLSH(2, 0.5, tables=4, capacity=512), 1)
    optimizer = torch.optim.SparseAdam(layer.parameters(), lr=0.02)
    for epoch in range(4):
        for part in torch.randperm(4000, generator=torch.Generator().manual_seed(epoch)).split(100):
            optimizer.zero_grad()
            F.mse_loss(layer(x[part]), y[part]).backward()
            optimizer.step()
    layer.eval()
    assert float(F.mse_loss(layer(x), y).detach()) < 0.1 * float(y.var())
    other = SparseLayer(EuclideanLSH(2, 1.0, tables=4, capacity=512, seed=3), 1).eval()
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), layer(x))


class Net(nn.Module):
    def __init__(self, *, gated: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x + self.mlp(self.norm(x)))
        return out


@pytest.mark.parametrize("router", ["lsh", "random", "switch"])
def test_routed_experts_start_as_the_block_and_part(router: str) -> None:
    torch.manual_seed(0)
    model, x = Net(), draw(6, 5, 8)
    before, keys = model(x), list(model.state_dict())
    receipt = lazy.sparsify_(model, RouteFFN(router=router, experts=4))
    (routed,) = [m for m in model.modules() if isinstance(m, RoutedFFN)]
    if router == "switch":
        assert not torch.equal(model(x), before)
    else:
        torch.testing.assert_close(model(x), before)
    model(x).square().sum().backward()
    used = routed.router(model.norm(x)).indices.flatten().unique().tolist()
    assert len(used) > 1 and routed.up is not None and routed.up.grad is not None
    assert routed.up.grad.abs().sum((1, 2)).nonzero().flatten().tolist() == used
    assert model.mlp[0].weight.grad is None  # the block's own weights are not used
    with torch.no_grad():
        routed.down[used[0]] += 1.0
    assert not torch.allclose(model(x), before)
    assert [k for k in model.state_dict() if "routed" not in k] == keys
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(x), model(x))
    with pytest.raises((NoBlocksError, ConfigError)):
        lazy.sparsify_(model, RouteFFN())
    lazy.restore_(model, receipt)
    assert torch.equal(model(x), before) and list(model.state_dict()) == keys


def test_each_token_is_computed_by_its_expert() -> None:
    torch.manual_seed(0)
    model, x = Net(), draw(40, 8)
    lazy.sparsify_(model, RouteFFN(router="lsh", experts=4, jitter=0.5))
    routed = next(m for m in model.modules() if isinstance(m, RoutedFFN))
    for row, got in zip(x, routed(x), strict=True):
        e = int(routed.router(row[None]).indices)
        want = routed.down[e] @ F.gelu(routed.up[e] @ row + routed.up_bias[e]) + routed.down_bias[e]
        torch.testing.assert_close(got, want)
    assert routed(x[:0]).shape == (0, 8)


def test_routed_models_are_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Net(), draw(7, 8)
    receipt = lazy.sparsify_(model, RouteFFN(router="switch", experts=3, jitter=0.1))
    lazy.save(model, tmp_path, receipt)
    fresh = Net()
    lazy.load_(fresh, tmp_path)
    torch.testing.assert_close(fresh(x), model(x))


@pytest.mark.parametrize(
    "wrong", [{"router": "best"}, {"experts": 1}, {"experts": 6}, {"blocks": "*"}, {"blocks": ()}, {"jitter": -1.0}]
)
def test_recipes_without_meaning(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError):
        RouteFFN(**wrong)
    assert RouteFFN.from_data(RouteFFN(experts=4).to_data()) == RouteFFN(experts=4)
    with pytest.raises(CheckpointError):
        RouteFFN.from_data({"config": "RouteFFN", "experts": 1, "blocks": ["*"]})


def test_all_classes_as_candidates_is_the_dense_loss() -> None:
    layer = HashedOutput(6, 50, hard=50, sampled=1, tables=2, bits=1)
    layer.bias.data = draw(50, 1, seed=3)
    x, labels = draw(20, 6), torch.arange(20)
    layer.candidates = lambda rows: torch.arange(50)  # type: ignore[method-assign]
    loss = layer.loss(x, labels)
    torch.testing.assert_close(loss, F.cross_entropy(layer(x), labels))
    loss.backward()
    assert layer.weight.grad is not None and layer.weight.grad.is_sparse
    dense = layer.weight.detach().clone().requires_grad_()
    F.cross_entropy(x @ dense.t() + layer.bias[:, 0].detach(), labels).backward()
    torch.testing.assert_close(layer.weight.grad.to_dense(), dense.grad)


def test_the_partition_function_is_estimated_without_bias() -> None:
    layer = HashedOutput(4, 400, hard=40, sampled=60, tables=2, bits=3)
    x, labels = draw(8, 4), torch.arange(8)
    with torch.no_grad():
        dense = layer(x).exp().sum(1)
        label = layer(x).gather(1, labels[:, None])[:, 0]
        sums = torch.zeros(8)
        for _ in range(600):
            each = torch.stack([layer.loss(x[k : k + 1], labels[k : k + 1]) for k in range(8)])
            sums += (each + label).exp()
    torch.testing.assert_close(sums / 600, dense, rtol=0.03, atol=0)


def test_candidates_are_those_that_share_buckets() -> None:
    layer = HashedOutput(5, 300, hard=30, tables=3, bits=4)
    x = draw(1, 5)
    own, mine = layer._codes(layer.weight), layer._codes(x)[0]
    votes = (own == mine).sum(1)
    found = layer.candidates(x)
    assert len(found) == min(30, int((votes > 0).sum())) and bool((votes[found] > 0).all())
    assert int(votes[found].min()) >= int(votes.sort(descending=True).values[len(found) - 1])
    assert layer.recall(draw(30, 5), top=1) > 30 / 300
    best = layer.predict(x)
    assert int(best) == int(found[layer(x)[0, found].argmax()])
    with pytest.raises(DataError, match="Labels are 0 to 299"):
        layer.loss(x, torch.tensor([300]))
    with pytest.raises(ConfigError):
        HashedOutput(5, 0)


def test_one_token_is_answered_as_in_a_batch() -> None:
    network = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))
    for router in ("lsh", "switch", "random"):
        routed = copy.deepcopy(network)
        lazy.sparsify_(routed, RouteFFN(router=router, experts=4, jitter=0.5))
        x = draw(20, 6)
        with torch.no_grad():
            alone = torch.cat([routed(row[None]) for row in x])
            torch.testing.assert_close(alone, routed(x))
            torch.testing.assert_close(routed(x[3]), routed(x)[3])
        assert not torch.allclose(alone, network(x), atol=1e-3)


def test_hyperplanes_move_off_the_origin_when_asked() -> None:
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    x = draw(50, 3)
    for offset, moved in ((0.0, False), (2.0, True)):
        routed = copy.deepcopy(network)
        lazy.sparsify_(routed, RouteFFN(router="lsh", experts=8, offset=offset))
        router = next(m for m in routed.modules() if isinstance(m, HyperplaneLSH))
        assert bool((router.offsets != 0).any()) == moved and float(router.offsets.abs().max()) <= offset
        scaled = router.route(x).indices == router.route(x / 1000).indices
        assert bool(scaled.all()) != moved  # through the origin only the direction counts
    with pytest.raises(ConfigError, match="offset is not negative"):
        RouteFFN(offset=-1.0)
