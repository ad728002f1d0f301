"""The bounded part of the fuzz of quantised blocks, and faults planted to see that it can fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import pytest
import torch

from lazyneuron.blocks.activation import Activation
from lazyneuron.ops.quantised.format import Format, quantise_columns, quantise_rows
from tests.accelerate.fuzz.quantised import COUNTS, OUTPUT, Case, differing, make_case, run
from tests.kernels import needs_kernels

pytestmark = needs_kernels


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(blocks: Iterable[int]) -> None:
    tally = run(7, blocks)
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.tokens > 10 * tally.blocks and tally.pairs > 4 * tally.fired > 0.2 * tally.pairs


def test_quantised_blocks_of_any_scale() -> None:
    check(range(250))


@pytest.mark.slow
def test_more_quantised_blocks_of_any_scale() -> None:
    check(range(250, 4000))


def _dropped(case: Case) -> Case:
    columns, bias = case.down
    rows = columns.bytes.clone()
    rows[0] = 0 if columns.format.bits == 8 else 0x88
    return dataclasses.replace(case, down=(dataclasses.replace(columns, bytes=rows), bias))


def _moved(case: Case) -> Case:
    rows, bias = case.first
    return dataclasses.replace(case, first=(dataclasses.replace(rows, bytes=rows.bytes.roll(1, 0)), bias))


def _other_scale(case: Case) -> Case:
    rows, bias = case.first
    return dataclasses.replace(case, first=(dataclasses.replace(rows, scale=rows.scale * 1.01), bias))


def _other_activation(case: Case) -> Case:
    relu = case.activation.kind == "relu"
    return dataclasses.replace(case, activation=Activation("squared_relu")) if relu else case


def _later(case: Case) -> Case:
    """Neurons that hardly fire are left out."""
    relu = case.activation.kind in ("relu", "fatrelu")
    at = case.activation.parameters[0] if case.activation.kind == "fatrelu" else 0.0
    return dataclasses.replace(case, activation=Activation("fatrelu", (at + 0.01 * abs(at) + 1e-3,))) if relu else case


FAULTS = {
    "a neuron dropped": (_dropped, OUTPUT),
    "rows moved by one": (_moved, OUTPUT),
    "another scale": (_other_scale, OUTPUT),
    "another activation": (_other_activation, OUTPUT),
    "neurons that hardly fire skipped": (_later, COUNTS),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    fault, kind = FAULTS[name]
    for index in range(200):
        if any(what == kind for _, what in run(7, [index], fault).wrong):
            return
    pytest.fail(f"{name} was not found")


def test_a_bit_is_a_difference() -> None:
    case = make_case(7, 0)
    y, _ = case.run(case.x, isa=-1)
    assert differing(y, y.clone()) == 0 and differing(torch.tensor([1.0]), torch.tensor([1.0 + 2.0**-23])) == 1


@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_weights_stay_finite(bits: int) -> None:
    most = torch.finfo(torch.float32).max
    weight = torch.full((2, 32), most)
    weight[1] = -most
    for what in (quantise_rows(weight, Format(bits=bits)), quantise_columns(weight.T, Format(bits=bits))):
        found = what.dequantised()
        assert bool(torch.isfinite(found).all()) and bool((found.abs() > 0.85 * most).all())
