"""A quantised block skips rows or reads all of them, whichever took less time, with the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.accelerate.quantised import choice
from lazyneuron.accelerate.quantised.choice import FIRST_LOOK, LOOK_EVERY, TRIALS
from lazyneuron.accelerate.quantised.execution import EVERY, SPARSE, QuantisedExecution
from tests.kernels import needs_kernels

pytestmark = needs_kernels


def accelerated(bias: float) -> nn.Module:
    """A block of which every neuron fires, or next to none."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 32)).eval()
    with torch.no_grad():
        block[0].bias.fill_(bias)
    lazy.accelerate_(block, weights="int8")
    return block


class Clock:
    """Time passes only while a block runs, as long as is said here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, skipping: float, reading: float) -> None:
        self.now, self.asked = 0.0, []
        real = QuantisedExecution.run

        def run(execution: QuantisedExecution, x: Tensor, every: bool | None = None) -> Tensor:
            self.now += reading if every else skipping
            self.asked.append(bool(every))
            return real(execution, x, every)

        monkeypatch.setattr(QuantisedExecution, "run", run)
        monkeypatch.setattr(choice.time, "perf_counter", lambda: self.now)


@pytest.mark.parametrize(("reading", "every"), [(2e-4, True), (4e-4, False)])
def test_what_took_less_time_runs_with_the_same_bits(
    reading: float, every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = accelerated(100.0)
    x = torch.randn(3, 32)
    with torch.no_grad():
        wanted = block(x)
        clock = Clock(monkeypatch, skipping=3e-4, reading=reading)
        assert all(torch.equal(block(x), wanted) for _ in range(FIRST_LOOK + 2 * TRIALS + 20))
        assert sum(clock.asked[: FIRST_LOOK - 1 + 2 * TRIALS]) == TRIALS  # as often as the other way
        assert set(clock.asked[-20:]) == {every}
        status = lazy.status(block).blocks[0]
        assert status.path_by_tokens[4] == (EVERY if every else SPARSE) == status.last
        assert status.path_by_tokens[8] == SPARSE and list(status.why_by_tokens) == [4]
        assert status.why_by_tokens[4].startswith("100% of its neurons fire: a call took 300 us skipping rows, ")
        assert status.calls == sum(status.paths.values()) == FIRST_LOOK + 2 * TRIALS + 21 and not status.fallbacks
        clock.asked.clear()
        for _ in range(LOOK_EVERY):
            block(x)
        assert {True, False} == set(clock.asked)  # looked at again
        twin = copy.deepcopy(block)
        assert (
            torch.equal(twin(x), wanted) and lazy.status(twin).blocks[0].path_by_tokens[4] == status.path_by_tokens[4]
        )


def test_nothing_is_tried_where_few_neurons_fire(monkeypatch: pytest.MonkeyPatch) -> None:
    block = accelerated(-100.0)
    clock = Clock(monkeypatch, skipping=3e-4, reading=1e-9)
    with torch.no_grad():
        for _ in range(2 * LOOK_EVERY):
            block(torch.randn(1, 32))
    assert not any(clock.asked)
    status = lazy.status(block).blocks[0]
    assert status.sparse_calls == status.calls == 2 * LOOK_EVERY
    assert status.why_by_tokens == {1: "0% of its neurons fire, and the rows of the others are skipped."}
