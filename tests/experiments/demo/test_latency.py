"""Interleaved timing and Amdahl's limit."""

import pytest
import torch
from torch import nn

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.experiments.demo.cases import cases
from lazyneuron.experiments.demo.latency import amdahl, latencies


class Logged(nn.Module):
    def __init__(self, name: str, log: list[tuple[str, float]]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.log.append((self.name, x.item()))
        return x


def test_runs_take_turns_on_the_same_batch():
    log: list[tuple[str, float]] = []
    models = {"a": Logged("a", log), "b": Logged("b", log)}
    timings = latencies(models, [torch.tensor(1.0), torch.tensor(2.0)], seconds=0.0, least=2, in_a_row=3)
    warm = [("a", 1.0), ("a", 2.0), ("b", 1.0), ("b", 2.0)]
    turn = [(name, value) for name in "ab" for value in (1.0, 2.0, 1.0)]
    assert log == [*warm, *turn, *turn]
    assert [(t.variant, t.n) for t in timings] == [("a", 4), ("b", 4)]


def test_every_batch_is_counted_in_its_turn():
    log: list[tuple[str, float]] = []
    latencies({"a": Logged("a", log)}, [torch.tensor(float(k)) for k in range(3)], seconds=0.0, least=3, in_a_row=2)
    assert [value for _, value in log[3:]] == [0.0, 1.0, 1.0, 2.0, 2.0, 0.0]


def test_quartiles_of_known_times(monkeypatch):
    ends = iter([0.0, 9.0, 0.001, 9.0, 0.003, 9.0, 0.002, 9.0, 0.004, 9.0, 0.005])  # the long ones are not counted
    ticks: list[float] = []

    def clock() -> float:
        # each run is a pair of readings; other readings see the same time
        return ticks[-1] if ticks else 0.0

    class Advancing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ticks.append((ticks[-1] if ticks else 0.0) + next(ends))
            return x

    monkeypatch.setattr("time.perf_counter", clock)
    (timing,) = latencies({"m": Advancing()}, [torch.zeros(1)], seconds=0.0, least=5, in_a_row=2)
    assert timing.n == 5
    assert (timing.low_ms, timing.median_ms, timing.high_ms) == pytest.approx((2.0, 3.0, 4.0))


def test_amdahl_by_hand():
    assert amdahl(0.5) == 2.0
    assert amdahl(0.6, remaining=0.25) == pytest.approx(1 / 0.55)
    assert amdahl(0.3, remaining=1.0) == 1.0
    assert amdahl(0.5, remaining=3.0) == 0.5
    for share, remaining in ((1.0, 0.0), (1.2, 0.0), (-0.1, 0.0), (0.5, -1.0)):
        with pytest.raises(ConfigError, match="share"):
            amdahl(share, remaining=remaining)


def test_cases_have_no_padding_and_cut_lines_keep_their_end():
    ids = [[1, *range(10, 8 + k), 2] for k in range(10, 70)] * 2
    found = cases(ids, most=3)
    assert [c.name for c in found] == ["1 x 10", "1 x 60", "32 x 48"]
    for case in found:
        for batch in case.batches:
            assert batch["input_ids"].shape == (case.lines, case.length)
            assert batch["attention_mask"].all()
            assert (batch["input_ids"][:, -1] == 2).all()
    with pytest.raises(DataError, match="32 are needed"):
        cases(ids[:60])


def test_at_least_one_round():
    with pytest.raises(ConfigError, match="at least 1 round"):
        latencies({}, [], seconds=1.0)
