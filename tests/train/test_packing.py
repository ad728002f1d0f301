"""Training with packed activations against the same training without: torch's own gradients are the reference."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import lazyneuron as lazy
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.core.undo import Transaction
from lazyneuron.train import SparsityMonitor, TrainingHooks, pack_activations_
from tests.accelerate.comparison import check_close
from tests.train.networks import data, net
from tests.train.packing import (
    BLOCKS,
    HIDDEN,
    WIDTH,
    Gated,
    Written,
    at_density,
    kept_bytes,
    made,
    plain,
    step,
    tokens,
    train,
)


def same(got, wanted, *, length=400):
    """The output bit for bit, gradients to rounding."""
    assert torch.equal(got[0], wanted[0])
    for one, other in zip(got[1], wanted[1], strict=True):
        check_close(one, other, length=length)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_gradients_are_the_dense_ones(name):
    model, x = made(name), tokens(3, 5)
    wanted, keys = step(model, x), list(model.state_dict())
    receipt = pack_activations_(model)
    assert {c.action for c in receipt.changes} == {"packed"} and list(model.state_dict()) == keys
    same(step(model, x), wanted)
    same(step(copy.deepcopy(model), x), wanted)
    lazy.restore_(model, receipt)
    assert not any("forward" in m.__dict__ for m in model.modules())
    after = step(model, x)
    assert torch.equal(after[0], wanted[0]) and all(map(torch.equal, after[1], wanted[1]))


@pytest.mark.parametrize("name", ["relu", "gated with dropout", "squared relu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(name, dtype):
    model, x = made(name).to(dtype), tokens(3, 5).to(dtype)
    wanted = step(model, x)
    pack_activations_(model)
    same(step(model, x), wanted)


@pytest.mark.parametrize("name", ["relu", "gated", "squared relu", "spread over a layer"])
def test_under_autocast(name):
    model, x = made(name), tokens(3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = step(model, x)
        pack_activations_(model)
        got = step(model, x)
    assert torch.equal(got[0], wanted[0]) and all(g.dtype == torch.float32 for g in got[1])
    for one, other in zip(got[1], wanted[1], strict=True):  # both round each gradient to bfloat16 once
        check_close(one.bfloat16(), other.bfloat16(), length=400, roundings=2)


@pytest.mark.parametrize("kind", ["relu", "squared relu", "gated"])
def test_at_density_a_tenth_a_fifth_of_the_memory_is_kept(kind):
    torch.manual_seed(0)
    model, x = {"relu": plain(nn.ReLU()), "squared relu": Written(), "gated": Gated()}[kind], tokens(200)
    up = {"relu": lambda: model[0], "squared relu": lambda: model.up, "gated": lambda: model.gate}[kind]()
    at_density(up, x, 0.1)
    dense = kept_bytes(model, x)
    pack_activations_(model)
    packed = kept_bytes(model, x)
    times = {"relu": 1, "squared relu": 2, "gated": 3}[kind]  # what torch keeps as wide as the hidden layer
    assert dense == 200 * HIDDEN * 4 * times
    # bits once, values of what fires once: for the gate and for up, if there are both
    assert packed == 200 * ((HIDDEN + 7) // 8) + 20 * HIDDEN * 4 * (2 if kind == "gated" else 1)
    assert packed * 5 <= dense


def test_dropout_costs_a_bit():
    model, x = plain(nn.ReLU(), dropout=0.5).train(), tokens(100)
    at_density(model[0], x, 0.1)
    assert kept_bytes(model, x) == 3 * 100 * HIDDEN * 4  # relu's result, what it is multiplied by, the product
    pack_activations_(model)
    assert kept_bytes(model, x) == 2 * 100 * ((HIDDEN + 7) // 8) + 10 * HIDDEN * 4


def test_a_receipt_says_what_was_kept_before():
    for model, times in ((plain(nn.ReLU()), 1), (Written(), 2), (Gated(), 3)):
        (change,) = pack_activations_(model).changes
        assert change.details["dense_bytes_per_token"] == HIDDEN * 4 * times


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_checkpointing(reentrant):
    model, x = plain(nn.ReLU(), dropout=0.4).train(), tokens(3, 5)
    wrapped = lambda x: checkpoint(model, x, use_reentrant=reentrant)  # noqa: E731
    wrapped.parameters = model.parameters
    wanted = step(wrapped, x)
    pack_activations_(model)
    same(step(wrapped, x), wanted)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo looks there, and hides the warning
@pytest.mark.parametrize("name", ["relu with dropout", "gated"])
def test_under_compile(name):
    model, x = made(name), tokens(3, 5)
    wanted = step(model, x)
    pack_activations_(model)
    compiled = torch.compile(model, backend="aot_eager")
    got = step(compiled, x)
    check_close(got[0], wanted[0], length=400)
    for one, other in zip(got[1], wanted[1], strict=True):
        check_close(one, other, length=400)
    assert kept_bytes(compiled, x) < HIDDEN * 15 * 4 * 3 / 2  # of three times as much


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_wrapped(kind, group):
    x, y = data()
    losses = []
    for packs in (False, True):
        model = net()
        if packs:
            pack_activations_(model)
        wrapped = model
        if kind == "ddp":
            wrapped = DistributedDataParallel(model)
        else:
            mesh = init_device_mesh("cpu", (1,))
            for layer in model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        optimizer = torch.optim.AdamW(wrapped.parameters(), 1e-2)
        losses.append([])
        for _ in range(4):
            loss = (wrapped(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and losses[0][3] < losses[0][0]


def test_a_second_packing_is_refused_and_a_failure_leaves_the_model_as_it_was(monkeypatch):
    model, x = net(), data()[0]
    before = [dict(m.__dict__) for m in model.modules()]
    real, calls = Transaction.set, []

    def fail(self, *args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(Transaction, "set", fail)
    with pytest.raises(KeyboardInterrupt):
        pack_activations_(model)
    assert [dict(m.__dict__) for m in model.modules()] == before
    monkeypatch.undo()
    pack_activations_(model)
    with pytest.raises(ConfigError, match="packed already; restore"):
        pack_activations_(model)
    assert model(x).requires_grad


def test_save_and_load_pack_again(tmp_path):
    model, x = made("relu"), tokens(3, 5)
    wanted = step(model, x)
    pack_activations_(model)
    lazy.save(model, tmp_path)
    other = BLOCKS["relu"]()
    (receipt,) = lazy.load_(other, tmp_path)
    assert receipt.verb == "pack_activations_"
    same(step(other, x), wanted)
    assert kept_bytes(other, x) < HIDDEN * 15 * 4


def test_without_gradients_and_under_functorch_the_model_runs_its_own_code():
    model, x = made("gated"), tokens(4)
    wanted, y = torch.func.grad(lambda x: model(x).square().sum())(x), model(x)
    pack_activations_(model)
    assert torch.equal(torch.func.grad(lambda x: model(x).square().sum())(x), wanted)
    with torch.no_grad():
        assert torch.equal(model(x), y)


def test_hooks_are_called_and_what_they_change_counts():
    results = []
    for packs in (False, True):
        model, seen = made("relu with dropout"), []
        if packs:
            pack_activations_(model)
        model[0].register_forward_hook(lambda m, a, out, seen=seen: seen.append(out.detach().clone()))
        model[3].register_forward_pre_hook(lambda m, a: (a[0] * 2,))
        results.append((*step(model, tokens(5)), seen))
    (y, gradients, seen), (other, others, also) = results
    assert torch.equal(y, other) and all(map(torch.equal, seen, also)) and len(also) == 1
    for one, two in zip(others, gradients, strict=True):
        check_close(one, two, length=400)


def test_what_is_written_after_the_activation_counts():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.act, self.down = nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH)
            self.writes = False

        def forward(self, x):
            h = self.act(self.up(x))
            if self.writes:
                h = h.mul_(2)
            return self.down(h)

    torch.manual_seed(0)
    model, x = Scaled(), tokens(5)
    receipt = pack_activations_(model)
    model.writes = True
    got = step(model, x)
    lazy.restore_(model, receipt)
    model.act = nn.Softplus(beta=1e6)  # a ReLU whose result may be written; its gradient differs at 1e-6 at most
    for one, other in zip(got[1], step(model, x)[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_ramp_is_followed():
    results = []
    for packs in (False, True):
        model = made("jsrelu")
        if packs:
            pack_activations_(model)
        model[1].mix = 0.9
        results.append(step(model, tokens(5)))
    same(results[1], results[0])


def test_a_frozen_down_keeps_nothing_of_the_hidden_layer_beside_what_the_activation_needs():
    model, x = made("relu"), tokens(20)
    model[2].weight.requires_grad_(False)
    pack_activations_(model)
    with torch.no_grad():
        fired = int((model[0](x) > 0).sum())
    assert kept_bytes(model, x) == 20 * ((HIDDEN + 7) // 8) + fired * 4


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (plain(nn.GELU()), "gelu.* is zero nowhere; sparsify it first"),
        (nn.TransformerEncoderLayer(WIDTH, 2, HIDDEN), "hold it as a module"),
    ],
)
def test_what_cannot_be_packed_is_refused(model, sentence):
    with pytest.raises(NoBlocksError, match=sentence):
        pack_activations_(model)


@pytest.mark.parametrize("held", [None, "model", [plain(nn.ReLU())]])
def test_what_is_no_model_is_refused(held):
    with pytest.raises(ConfigError, match=r"A model is a torch\.nn\.Module, got"):
        pack_activations_(held)


def test_mixed_devices_are_refused():
    model = plain(nn.ReLU())
    model[2].to("meta")
    with pytest.raises(NoBlocksError, match=r"several devices|meta"):
        pack_activations_(model)


def test_a_block_that_does_more_in_training_is_left_as_it_is():
    class Noisy(Gated):
        def forward(self, x):
            return torch.nn.functional.dropout(super().forward(x), 0.5, self.training)

    class Estimated(nn.Module):
        """A straight-through ReLU."""

        def forward(self, z):
            return z + (z.relu() - z).detach()

    with pytest.raises(NoBlocksError, match="does more in training"):
        pack_activations_(Noisy())
    with pytest.raises(NoBlocksError, match="not the slope of relu"):
        pack_activations_(plain(Estimated()))


@pytest.mark.parametrize("saving", [False, True])
def test_the_monitor_logs_what_was_saved(saving):
    model, (x, _) = net(saving=saving), data()
    pack_activations_(model)
    monitor = SparsityMonitor(model, every=1)
    with monitor.watching(1):
        loss = model(x).square().mean()
    loss.backward()
    (reading,) = monitor.readings
    pairs = x.shape[0] * x.shape[1] * 32
    assert list(reading.dense_bytes.values()) == [4 * pairs, 4 * pairs * 1]
    for name, density in reading.density.items():
        assert reading.kept_bytes[name] == pairs // 8 + round(4 * density * pairs)
    scalars = reading.scalars()
    assert scalars["saved_bytes"] == sum(reading.dense_bytes.values()) - sum(reading.kept_bytes.values()) > 0
    assert scalars["kept_share/layers.0.mlp"] == pytest.approx(1 / 32 + reading.density["layers.0.mlp"])


def test_hooks_pack_and_give_back():
    losses = []
    for packs in (False, True):
        model = net(dropout=0.2)
        hooks = TrainingHooks(model, every=2, pack=packs)
        torch.manual_seed(3)
        losses.append(train(model, hooks, [data()] * 4))
        assert bool(hooks.monitor.readings[0].kept_bytes) == packs
        hooks.stop()
        assert not any("forward" in m.__dict__ for m in model.modules())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
