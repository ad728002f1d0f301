"""The bounded part of the fuzz, and faults planted to see that it can fail."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.ops.sparse_mlp.packed import PackedBlock
from tests.accelerate.fuzz.judge import OUTPUT, PATTERN, WRONG_SKIP
from tests.accelerate.fuzz.run import run
from tests.kernels import LEVELS


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(blocks: Iterable[int]) -> None:
    tally = run(1, blocks)
    assert not tally.failures, "\n".join(tally.failures)
    levels = [path for path in tally.runs if path not in ("dense", "gather")]
    assert all(tally.skipped[path] > 0.1 * tally.pairs[path] > 0 for path in levels)
    assert all(tally.compared[path] > tally.runs[path] for path in tally.runs)


def test_blocks_of_any_scale() -> None:
    check(range(200))


@pytest.mark.slow
def test_more_blocks_of_any_scale() -> None:
    check(range(200, 4000))


def numbers(row: int, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[PackedBlock], PackedBlock]:
    """A fault that changes one row of the certificate."""

    def plant(packed: PackedBlock) -> PackedBlock:
        certificate = packed.sketch.certificate.clone()
        certificate[row] = value(certificate[row])
        return dataclasses.replace(packed, sketch=dataclasses.replace(packed.sketch, certificate=certificate))

    return plant


def _wider(packed: PackedBlock) -> PackedBlock:
    left, low, high = dataclasses.astuple(packed.zero)
    unit = 2.0**-5
    zero = ZeroInterval(left + unit * abs(left), low - unit * abs(low), high + unit * abs(high))
    return dataclasses.replace(packed, zero=zero)


def _dropped(packed: PackedBlock) -> PackedBlock:
    rows = packed.down_rows.clone()
    rows[0] = 0
    return dataclasses.replace(packed, down_rows=rows)


def _other_activation(packed: PackedBlock) -> PackedBlock:
    relu = packed.activation.kind == "relu"
    return dataclasses.replace(packed, activation=Activation("squared_relu")) if relu else packed


FAULTS = {
    "no slack": (lambda packed: packed.with_slack(0.0), WRONG_SKIP),
    "a norm that underflows": (numbers(2, torch.zeros_like), WRONG_SKIP),
    "an input error that underflows": (numbers(3, torch.zeros_like), WRONG_SKIP),
    "nothing for subnormal numbers and biases": (numbers(4, torch.zeros_like), WRONG_SKIP),
    "no limit": (numbers(5, lambda row: torch.full_like(row, math.inf)), WRONG_SKIP),
    "the zero set too wide": (_wider, WRONG_SKIP),
    "a neuron dropped": (_dropped, OUTPUT),
    "rows moved by one": (lambda p: dataclasses.replace(p, down_rows=p.down_rows.roll(1, 0)), OUTPUT),
    "another activation": (_other_activation, OUTPUT),
    "infinity made finite": (lambda p: dataclasses.replace(p, down_rows=torch.zeros_like(p.down_rows)), PATTERN),
}


OF_ONE_PLANE = {"an input error that underflows"}  # which quantises so coarsely that chance meets it
ONE_PLANE = 3  # the ISA level that has it


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    fault, kind = FAULTS[name]
    if name in OF_ONE_PLANE and ONE_PLANE not in LEVELS:
        pytest.skip("no level that runs here quantises the input in one plane")
    for index in range(300):
        tally = run(1, [index], fault)
        if any(what == kind for path, what in tally.wrong if path != "dense"):
            return
    pytest.fail(f"{name} was not found")
