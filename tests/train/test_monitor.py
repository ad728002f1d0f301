"""Readings against brute force, and trainings that do not notice them."""

from __future__ import annotations

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import lazyneuron as lazy
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.induce import KeepTop, ShiftedActivation
from lazyneuron.train import SparsityMonitor
from tests.train.networks import HIDDEN, TOKENS, WIDTH, data, net


def by_hand(model, x, real=None):
    """Density and derivative sparsity of each layer, by running the layers one by one."""
    found, real = [], torch.ones(x.shape[:2], dtype=torch.bool) if real is None else real
    with torch.no_grad():
        for layer in model.layers:
            p = layer.mlp[0](layer.norm(x))
            a = layer.mlp[1](p)
            slope = layer.mlp[1].derivative(p) if hasattr(layer.mlp[1], "derivative") else (p > 0).float()
            found.append((float((a[real] != 0).float().mean()), float((slope[real] == 0).float().mean())))
            x = layer(x)
    return found


def train(model, *, monitor=None, steps=6):
    x, y = data()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    torch.manual_seed(5)
    for step in range(1, steps + 1):
        rows = torch.randint(len(x), (8,))
        if monitor is None:
            loss = (model(x[rows]) - y[rows]).square().mean()
        else:
            with monitor.watching(step):
                loss = (model(x[rows]) - y[rows]).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()], torch.get_rng_state()


def test_a_reading_is_what_the_forward_did():
    model, (x, _) = net(), data()
    monitor = SparsityMonitor(model)
    with monitor.watching(100):
        model(x)
    (reading,) = monitor.readings
    wanted = by_hand(model, x)
    assert reading.step == 100 and list(reading.density) == ["layers.0.mlp", "layers.1.mlp"]
    assert list(reading.density.values()) == pytest.approx([d for d, _ in wanted])
    assert list(reading.derivative_sparsity.values()) == pytest.approx([s for _, s in wanted])
    assert reading.mean_density == pytest.approx(sum(d for d, _ in wanted) / 2)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_padding_and_dropout_are_no_silence(dropout):
    model, (x, _) = net(dropout=dropout).train(), data()
    mask = (torch.rand(len(x), TOKENS, generator=torch.Generator().manual_seed(2)) < 0.6).long()
    monitor = SparsityMonitor(model, every=1)
    with monitor.watching(1):
        model(x, attention_mask=mask)
    first = by_hand(model, x, mask != 0)[0]  # dropout changes what enters the second layer
    reading = monitor.readings[0]
    assert reading.density["layers.0.mlp"] == pytest.approx(first[0])
    assert reading.derivative_sparsity["layers.0.mlp"] == pytest.approx(first[1])


def test_several_forwards_of_a_step_count_together():
    model, (x, _) = net(), data()
    monitor = SparsityMonitor(model, every=1)
    with monitor.watching(1):
        model(x[:10]), model(x[10:])
    assert list(monitor.readings[0].density.values()) == pytest.approx([d for d, _ in by_hand(model, x)])


def test_slope_and_value_are_told_apart():
    model, (x, _) = net(), data()
    for layer in model.layers:
        layer.mlp[1] = ShiftedActivation(dx=1.6, dy=1.6)
    monitor = SparsityMonitor(model, every=1)
    with monitor.watching(1):
        model(x)
    wanted = by_hand(model, x)
    assert list(monitor.readings[0].derivative_sparsity.values()) == pytest.approx([s for _, s in wanted])
    assert min(monitor.readings[0].density.values()) > 0.99 and wanted[0][1] > 0.2


@pytest.mark.parametrize("saving", [False, True])
def test_training_is_bitwise_the_same(saving):
    plain = train(net(dropout=0.3, saving=saving))
    model = net(dropout=0.3, saving=saving)
    monitor = SparsityMonitor(model, every=2)
    watched = train(model, monitor=monitor)
    assert all(map(torch.equal, plain[0], watched[0])) and torch.equal(plain[1], watched[1])
    assert [r.step for r in monitor.readings] == [2, 4, 6]


def test_a_recomputed_forward_is_not_counted_again():
    model, (x, _) = net(saving=True), data()
    monitor = SparsityMonitor(model, every=1)
    monitor.start(1)
    model(x).square().mean().backward()
    assert [s.watch.tally.calls for s in monitor._seen] == [1, 1]
    assert int(monitor._seen[0]._pairs) == x.shape[:2].numel() * HIDDEN


def test_between_readings_there_is_no_hook():
    model = net()
    monitor = SparsityMonitor(model, every=3)

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    for step, wanted in ((1, False), (2, False), (3, True)):
        monitor.start(step)
        assert bool(hooks()) == wanted
        assert monitor.stop(step) is None and hooks() == 0
    with pytest.raises(ZeroDivisionError), monitor.watching(6):
        raise ZeroDivisionError
    assert hooks() == 0 and monitor.readings == []


def test_blocks_that_were_found_before_can_be_given_unless_they_changed_since():
    model, (x, _) = net(), data()
    outdated = lazy.find_blocks(model)
    lazy.sparsify_(model, KeepTop(density=0.25))
    with pytest.raises(ConfigError, match="found with the activation relu, which has changed since"):
        SparsityMonitor(model, every=1, blocks=outdated)
    monitor = SparsityMonitor(model, every=1, blocks=lazy.find_blocks(model)[:1])
    with monitor.watching(1):
        model(x)
    assert max(monitor.readings[0].density.values()) <= 0.25


def test_tensorboard_gets_every_number(tmp_path):
    model, (x, _) = net(), data()
    with SummaryWriter(tmp_path) as writer:
        monitor = SparsityMonitor(model, every=2, writer=writer)
        for step in range(1, 5):
            with monitor.watching(step):
                model(x)
    seen = EventAccumulator(str(tmp_path)).Reload()
    wanted = by_hand(model, x)
    assert sorted(seen.Tags()["scalars"]) == sorted(monitor.readings[0].scalars())
    points = seen.Scalars("density/layers.1.mlp")
    assert [p.step for p in points] == [2, 4] and points[0].value == pytest.approx(wanted[1][0])
    assert seen.Scalars("derivative_sparsity/mean")[0].value == pytest.approx((wanted[0][1] + wanted[1][1]) / 2)


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(ConfigError, match="whole number >= 1, got 0"):
        SparsityMonitor(net(), every=0)
    with pytest.raises(NoBlocksError):
        SparsityMonitor(nn.Linear(WIDTH, WIDTH))
