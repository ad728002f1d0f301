"""Which path is chosen when times are bad, and how the choice is followed up while the model runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import lazyneuron as lazy
from lazyneuron.accelerate import prepare
from lazyneuron.accelerate.execution.checks import measure_checks
from lazyneuron.accelerate.execution.freshness import Freshness
from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.accelerate.machine.cost_model import Line
from lazyneuron.accelerate.path import DENSE, Path
from lazyneuron.accelerate.policy import tune
from lazyneuron.accelerate.policy.choice import BUCKETS, Candidates
from lazyneuron.accelerate.policy.following import LOOKS, PROBE_EVERY, Following, Runner
from lazyneuron.accelerate.status import executions
from lazyneuron.core.errors import NoBlocksError, TimingWarning
from tests.accelerate.test_transform import calls, mlp, run, set_table
from tests.kernels import SPARSE_PATH


def _as_if_timed(monkeypatch: pytest.MonkeyPatch, *rounds: dict[str, float]) -> list[int]:
    """Let tune measure these times (in us) instead of the machine, one dictionary a look, the last one for ever."""
    looks: list[int] = []

    def timed(block: object, packed: object, candidates: Candidates, *_: object) -> dict[Path, float]:
        now = rounds[min(len(looks), len(rounds) - 1)]
        looks.append(1)
        return {path: now["dense" if path is DENSE else "sparse"] for path in (DENSE, *candidates.lines)}

    monkeypatch.setattr(tune, "_time_bucket", timed)
    return looks


def test_one_bad_timing_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost model of these tests predicts sparse at a third of dense; the first look says the opposite."""
    looks = _as_if_timed(monkeypatch, {"dense": 100.0, "sparse": 400.0}, {"dense": 100.0, "sparse": 35.0})
    receipt = lazy.accelerate_(mlp(), [torch.randn(1, 24)])
    assert len(looks) == 2 and receipt.changes[0].action == "accelerated"
    assert not any("other work" in note for note in receipt.notes)
    assert set(receipt.changes[0].details["path_by_tokens"].values()) != {"dense"}


def test_a_busy_machine_is_told_of_and_does_not_decide_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = _as_if_timed(monkeypatch, {"dense": 100.0, "sparse": 130.0})
    with pytest.warns(TimingWarning, match="other work holds the cores"):
        receipt = lazy.accelerate_(mlp(), [torch.randn(1, 24)])
    assert len(looks) == 2 and "timed again while they run" in receipt.notes[-1]
    predicted = receipt.changes[0].details["predicted_us"]["1"]
    assert receipt.changes[0].details["path_by_tokens"]["<= 1"] == SPARSE_PATH.name
    assert predicted["dense"] == 100.0 and predicted[SPARSE_PATH.name] < 95.0


def test_a_block_that_runs_densely_is_called_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(fixed_us=10.0, slope_us=2000.0)
    costly = Candidates(dense_us=(100.0,) * 13, lines={SPARSE_PATH: (line,) * 13}, rows=1)
    monkeypatch.setattr(prepare, "_candidates", lambda *_: costly)
    model = mlp()
    receipt = lazy.accelerate_(model)
    assert receipt.changes[0].action == "dense" and "timed again" in receipt.changes[0].reason
    run(model, torch.randn(3, 24))
    assert lazy.status(model).blocks[0].last == "dense" and calls(model) == 0
    split = (Line(fixed_us=10.0, slope_us=10.0),) * 7 + (line,) * 6
    mixed = Candidates(dense_us=(100.0,) * 13, lines={SPARSE_PATH: split}, rows=1)
    monkeypatch.setattr(prepare, "_candidates", lambda *_: mixed)
    change = lazy.accelerate_(mlp()).changes[0]
    assert change.action == "accelerated" and "up to 64 tokens" in change.reason


def test_checks_that_take_longer_than_is_gained_make_a_block_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "measure_checks", lambda *_, **__: (1e4,) * BUCKETS)
    model = mlp()
    assert lazy.accelerate_(model).changes[0].action == "dense"
    with pytest.raises(NoBlocksError):  # nothing to gain at any density, so it was left alone
        lazy.status(model)


def test_the_checks_are_timed_without_a_change_to_the_model() -> None:
    model = mlp()
    (block,) = lazy.find_blocks(model)
    packed, before = pack(block), {name: dict(module.__dict__) for name, module in model.named_modules()}
    took = measure_checks(block, packed, Freshness(block), SPARSE_PATH, model=model)
    assert len(took) == BUCKETS and all(0 < us < 1e5 for us in took)
    assert {name: dict(module.__dict__) for name, module in model.named_modules()} == before
    model.train()
    assert set(measure_checks(block, packed, Freshness(block), SPARSE_PATH, model=model)) == {10.0}


def test_a_dense_call_is_not_kept_by_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made once in so many calls, when a probe is due."""
    model, x, looks = mlp(), torch.randn(1, 24), []
    lazy.accelerate_(model)
    (execution,) = executions(model)
    execution.following.candidates = Candidates(
        dense_us=(10.0,) * 13, lines={SPARSE_PATH: (Line(fixed_us=1.0, slope_us=1e3),) * 13}, rows=1
    )
    set_table(execution, (DENSE,) * 13)
    monkeypatch.setattr(type(execution), "_why_not", lambda self, x: looks.append(1))
    for _ in range(2 * PROBE_EVERY):
        run(model, x)
    assert len(looks) == 2 and lazy.status(model).blocks[0].paths == {"dense": 2 * PROBE_EVERY}


def test_times_are_taken_again_while_the_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense was chosen on a bad timing; looks while running find sparse three times as fast, and it is taken."""
    model, x = mlp(), torch.randn(2, 24)
    lazy.accelerate_(model, [torch.randn(64, 24)])
    execution = executions(model)[0]
    now = execution.following
    bad = {path: (Line(fixed_us=90.0, slope_us=400.0),) * 13 for path in now.candidates.lines}
    now.candidates = Candidates(dense_us=(100.0,) * 13, lines=bad, rows=1)
    now.table = now.candidates.choose(now.shares)
    set_table(execution, now.table)
    assert now.table[1] is DENSE
    real = Following._timed

    def timed(self: Following, x: torch.Tensor, bucket: int, path: Path, run: Runner) -> torch.Tensor:
        y = real(self, x, bucket, path, run)
        self._times[bucket, path][-1] = 90.0 if path is DENSE else 30.0
        return y

    monkeypatch.setattr(Following, "_timed", timed)
    for _ in range(PROBE_EVERY * (LOOKS + 1)):
        run(model, x)
    assert now.table[1] is not DENSE and lazy.status(model).blocks[0].last == now.table[1].name
    monkeypatch.setattr(Following, "_timed", lambda *a: _slow_sparse(real, *a))
    for _ in range(PROBE_EVERY * (LOOKS + 2)):
        run(model, x)
    assert now.table[1] is DENSE


def _slow_sparse(
    real: Callable[..., torch.Tensor], self: Following, x: torch.Tensor, bucket: int, path: Path, run: Runner
) -> torch.Tensor:
    y = real(self, x, bucket, path, run)
    self._times[bucket, path][-1] = 30.0 if path is DENSE else 90.0
    return y
