"""Costs over several processes, against counting, simulation and the single process."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lazyneuron.core.errors import ConfigError
from lazyneuron.measure import Device, decode_step, fullest_share, traffic, training_step
from tests.house.rooms import ROOT


def test_fullest_share_by_enumeration():
    neurons, rate, processes = 6, 0.3, 3
    mean = 0.0
    for fires in itertools.product((0, 1), repeat=neurons):
        chance = math.prod(rate if f else 1 - rate for f in fires)
        mean += chance * max(sum(fires[k : k + 2]) for k in range(0, neurons, 2))
    assert fullest_share(neurons, rate, processes) == pytest.approx(mean / (2 * rate), rel=1e-12)


def test_fullest_share_by_simulation():
    fires = torch.rand(4000, 8, 512, generator=torch.Generator().manual_seed(0)) < 0.05
    wanted = fires.sum(2).amax(1).double().mean() / (512 * 0.05)
    assert fullest_share(8 * 512, 0.05, 8) == pytest.approx(float(wanted), rel=0.01)


@pytest.mark.parametrize(("rate", "processes"), [(0.0, 8), (1.0, 8), (0.1, 1)])
def test_fullest_share_is_one_where_all_have_the_same(rate, processes):
    assert fullest_share(1024, rate, processes) == 1.0


@pytest.mark.parametrize("gated", [False, True])
def test_one_process_is_the_dense_block_at_density_one(gated):
    step = decode_step(64, 256, d_out=32, itemsize=2, gated=gated, density=1.0, processes=1, tokens=5)
    wanted = traffic(64, 256, d_out=32, itemsize=2, gated=gated, density=1.0, tokens=5)
    assert (step.flops, step.weight_bytes) == (wanted.dense_flops, wanted.dense_bytes)
    assert step.sent_bytes == step.collectives == 0 and step.imbalance == 1.0


def test_shares_add_up_but_for_the_imbalance():
    one = decode_step(64, 256, d_out=64, itemsize=2, gated=True, density=0.1, processes=1)
    eight = decode_step(64, 256, d_out=64, itemsize=2, gated=True, density=0.1, processes=8)
    assert eight.imbalance == pytest.approx(fullest_share(256, 0.1, 8))
    sparse = 2 * 256 * 0.1 * (64 + 64) / 8
    assert eight.weight_bytes - one.weight_bytes / 8 == pytest.approx((eight.imbalance - 1) * sparse)
    assert eight.sent_bytes == 2 * 7 / 8 * 64 * 2  # a ring


def test_training_counts_products():
    """Six products of a plain block: up and down, and two each in the backward; at density 1 all of them whole."""
    dense = training_step(8, 32, d_out=8, itemsize=4, gated=False, density=1.0, processes=1, tokens=3, packed=False)
    assert dense.flops == 6 * 2 * 3 * 8 * 32
    sparse = training_step(8, 32, d_out=8, itemsize=4, gated=False, density=0.25, processes=4, tokens=3)
    assert sparse.flops == pytest.approx((1 + 5 * 0.25) * 2 * 3 * 8 * 32)
    assert dense.kept_bytes == 3 * 2 * 32 * 4 and sparse.kept_bytes == 3 * 32 * (1 / 8 + 0.25 * 4)
    assert sparse.sent_bytes == 3 * 3 / 4 * 2 * 8 * 32 * 4


def test_time_is_the_slower_of_memory_and_arithmetic_and_the_way():
    device = Device(flops_per_s=1e12, bytes_per_s=1e9, link_bytes_per_s=1e8, latency_us=7)
    step = decode_step(64, 256, d_out=64, itemsize=2, gated=False, density=1.0, processes=2)
    assert step.time_us(device) == pytest.approx(1e6 * (2 * 128 * 128 / 1e9 + 64 * 2 / 1e8) + 7)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fullest_share(4, 0.1, 8),
        lambda: fullest_share(4, 1.5, 2),
        lambda: fullest_share(4, 0.1, 0),
        lambda: training_step(8, 8, d_out=8, itemsize=2, gated=False, density=0.1, processes=0, tokens=1),
        lambda: Device(flops_per_s=0, bytes_per_s=1, link_bytes_per_s=1, latency_us=0),
        lambda: Device(flops_per_s=1, bytes_per_s=1, link_bytes_per_s=math.inf, latency_us=0),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(ConfigError):
        call()


BLOCKS = {"Llama-3.1-8B": (4096, 14336), "Llama-3.1-70B": (8192, 28672)}


def table() -> list[str]:
    """The rows of docs/parallel.md."""
    found = []
    for name, (width, hidden) in BLOCKS.items():
        for processes in (1, 8, 64, 512):
            link, latency = (450e9, 10) if processes <= 8 else (50e9, 20)
            device = Device(flops_per_s=989e12, bytes_per_s=4.8e12, link_bytes_per_s=link, latency_us=latency)
            shape = {"d_out": width, "itemsize": 2, "gated": True, "processes": processes}
            decode = [decode_step(width, hidden, density=density, **shape) for density in (1.0, 0.05)]
            train = [
                training_step(width, hidden, density=density, tokens=8192, packed=density < 1, **shape)
                for density in (1.0, 0.1)
            ]
            row = [f"{step.time_us(device):.1f}" for step in decode] + [f"{decode[1].imbalance:.2f}"]
            row += [f"{step.time_us(device) / 1e3:.1f}" for step in train]
            row += [f"{step.kept_bytes / 1e9:.2f}" for step in train] + [f"{train[0].sent_bytes / 1e9:.2f}"]
            found.append(f"| {name} | {processes} | {' | '.join(row)} |")
    return found


def test_the_page_shows_what_the_functions_give():
    page = (ROOT / "docs" / "parallel.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("| Llama")] == table()
