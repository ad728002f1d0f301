"""The cost model: what it predicts, how it is kept, and what is made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path as FilePath

import pytest
import torch

from lazyneuron.accelerate.machine import costs
from lazyneuron.accelerate.machine.cost_model import CostModel, Line
from lazyneuron.accelerate.machine.costs import are_known, cost_model_for
from lazyneuron.accelerate.path import CERTIFIED_1, CERTIFIED_2, DENSE, GATHER, Path, Shares
from lazyneuron.accelerate.policy.choice import Candidates, bucket_of, from_cost_model
from lazyneuron.core.errors import CheckpointError
from tests.core.resealed import reseal

SHAPES, TOKENS = ((16, 64), (32, 128), (64, 256)), (1, 4, 16)


def law(weights: float, tokens: float) -> float:
    """A power law is a plane in logarithms, where the model interpolates without error."""
    return 0.01 * weights**0.8 * tokens**0.6


def lawful(mark: str = "here") -> CostModel:
    dense = tuple(tuple(law(2 * d * h, t) for t in TOKENS) for d, h in SHAPES)
    lines = tuple(tuple((0.1 * v, 2.0 * v) for v in row) for row in dense)
    return CostModel(
        dtype="float32",
        fingerprint=mark,
        shapes=SHAPES,
        tokens=TOKENS,
        dense_us=dense,
        lines={CERTIFIED_2: lines},
        computed=((0.1, 0.2), (0.5, 0.6)),
    )


@pytest.mark.parametrize("weights", [2 * 16 * 64, 5000, 2 * 64 * 256])
@pytest.mark.parametrize("tokens", [1, 2, 7, 16])
def test_a_power_law_is_reproduced_between_the_points(weights: int, tokens: int) -> None:
    model = lawful()
    assert model.dense(weights, tokens) == pytest.approx(law(weights, tokens), rel=1e-6)
    line = model.line(CERTIFIED_2, weights, tokens)
    assert line is not None and line(0.25) == pytest.approx((0.1 + 0.5) * law(weights, tokens), rel=1e-6)
    assert model.line(CERTIFIED_1, weights, tokens) is None


def test_more_work_never_costs_less_beyond_the_points() -> None:
    model = lawful()
    assert model.dense(2**24, 16) > model.dense(2**20, 16) > model.dense(2 * 64 * 256, 16)
    assert model.dense(2**15, 4096) > model.dense(2**15, 64) > model.dense(2**15, 16)


def test_computed_share_goes_through_its_points() -> None:
    shares = [lawful().computed_share(f) for f in (0.1, 0.3, 0.5, 1.0)]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 1.0])


def test_round_trip(tmp_path: FilePath) -> None:
    path = tmp_path / "a" / "cost.json"
    costs.save(lawful(), path)
    assert costs.read(path, "here") == lawful()
    with pytest.raises(CheckpointError, match=r"another version or machine.*doctor --remeasure"):
        costs.read(path, "elsewhere")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: "null",
        {"dense_us": [[1.0]]},
        {"dense_us": [[float("nan")] * 3] * 3},
        {"dense_us": [[0.0] * 3] * 3},
        {"lines": 3},
        {"format": -1},
        {"tokens": [0, 1, 2]},
        {"tokens": [4, 2, 1]},
        {"shapes": [[0, 5]]},
        {"shapes": []},
        {"computed": [[0.1, 2.0]]},
        {"lines": {"certified-9": []}},
        {"lines": {"gather": [[[-1.0, 1.0]] * 3] * 3}},
        {"lines": {"dense": [[[1.0, 1.0]] * 3] * 3}},
        {"lines": {"gather": [[[1.0, float("nan")]] * 3] * 3}},
    ],
)
def test_a_damaged_file_is_refused_and_kept(tmp_path: FilePath, damage) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "cost.json"
    costs.save(lawful(), path)
    if callable(damage):
        path.write_text(damage(path.read_text()))
    else:
        reseal(path, lambda facts: facts | damage)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="cannot be used"):
        costs.read(path, "here")
    assert path.read_bytes() == before


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath) -> list[torch.dtype]:
    """Counts the measurements of a machine whose cache is a file in the test's folder."""
    done: list[torch.dtype] = []

    def measure(dtype: torch.dtype, *, fingerprint: str, progress: object) -> CostModel:
        done.append(dtype)
        return dataclasses.replace(lawful(), fingerprint=fingerprint)

    monkeypatch.setattr(costs, "measure", measure)
    monkeypatch.setattr(costs, "_unsaved", {})
    monkeypatch.setattr(costs, "cache_file", lambda dtype, mark: tmp_path / "cache" / "cost.json")
    return done


def test_a_machine_is_measured_once(measured: list[torch.dtype]) -> None:
    assert not are_known(torch.float32)
    first = cost_model_for(torch.float32)
    assert are_known(torch.float32)
    assert cost_model_for(torch.float32) == first
    assert len(measured) == 1
    cost_model_for(torch.float32, anew=True)
    assert len(measured) == 2


def test_a_cache_that_cannot_be_written_costs_a_warning(measured: list[torch.dtype], tmp_path: FilePath) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="kept for this process only"):
        first = cost_model_for(torch.float32)
    assert are_known(torch.float32)
    assert cost_model_for(torch.float32) is first
    assert len(measured) == 1
    assert (tmp_path / "cache").read_text() == "in the way"


def two_paths(dense: float) -> Candidates:
    return Candidates(
        dense_us=(dense,) * 13,
        lines={
            CERTIFIED_2: (Line(fixed_us=20.0, slope_us=100.0),) * 13,
            CERTIFIED_1: (Line(fixed_us=10.0, slope_us=100.0),) * 13,
        },
        rows=1,
    )


def test_the_cheapest_path_wins_by_its_own_shares() -> None:
    # 20 + 100 (0.1 + 0.05) = 35 against 10 + 100 (0.3 + 0.05) = 45
    shares = {CERTIFIED_2: Shares(0.1, 0.05), CERTIFIED_1: Shares(0.3, 0.05)}
    assert set(two_paths(100.0).choose(shares)) == {CERTIFIED_2}
    # 10 + 100 (0.15 + 0.05) = 30
    assert set(two_paths(100.0).choose(shares | {CERTIFIED_1: Shares(0.15, 0.05)})) == {CERTIFIED_1}


@pytest.mark.parametrize(("dense", "path"), [(30.0, DENSE), (31.0, DENSE), (32.0, CERTIFIED_1)])
def test_dense_stays_unless_it_is_clearly_beaten(dense: float, path: Path) -> None:
    shares = dict.fromkeys((CERTIFIED_2, CERTIFIED_1), Shares(0.15, 0.05))
    assert set(two_paths(dense).choose(shares)) == {path}


def test_the_checks_of_a_call_are_a_part_of_its_time() -> None:
    shares = dict.fromkeys((CERTIFIED_2, CERTIFIED_1), Shares(0.15, 0.05))
    checked = dataclasses.replace(two_paths(50.0), checks_us=(0.0, 10.0, 20.0, 41.0) + (0.0,) * 9)
    # 10 + 100 (0.15 + 0.05) = 30, and 47.5 are wanted at most
    assert [checked.choose(shares)[k] for k in range(4)] == [CERTIFIED_1, CERTIFIED_1, DENSE, DENSE]
    assert checked.time_us(CERTIFIED_1, 2, shares) == pytest.approx(50.0)
    assert [checked.worth_probing(k) for k in range(4)] == [True, True, True, False]
    moved = checked.corrected(2, 50.0, {CERTIFIED_1: (20.0, Shares(0.15, 0.05))})
    assert moved.time_us(CERTIFIED_1, 2, shares) == pytest.approx(40.0) and moved.choose(shares)[2] is CERTIFIED_1


def test_a_measurement_moves_its_own_bucket_only() -> None:
    shares = dict.fromkeys((CERTIFIED_2, CERTIFIED_1), Shares(0.15, 0.05))
    measured = {CERTIFIED_2: (70.0, Shares(0.15, 0.05)), CERTIFIED_1: (90.0, Shares(0.15, 0.05))}
    moved = two_paths(100.0).corrected(3, 80.0, measured)
    assert moved.time_us(CERTIFIED_2, 3, shares) == pytest.approx(70.0)
    assert moved.time_us(CERTIFIED_1, 3, shares) == pytest.approx(90.0)
    assert moved.dense_us[3] == 80.0
    table = moved.choose(shares)
    assert table[3] == CERTIFIED_2
    assert {path for k, path in enumerate(table) if k != 3} == {CERTIFIED_1}


def test_buckets() -> None:
    assert [bucket_of(t) for t in (0, 1, 2, 3, 4, 5, 4096, 10**6)] == [0, 0, 1, 2, 2, 3, 12, 12]


def test_candidates_follow_the_model() -> None:
    found = from_cost_model(lawful(), weights=2 * 32 * 128, gated=False, paths=(CERTIFIED_2, GATHER))
    assert set(found.lines) == {CERTIFIED_2}  # the other was not measured
    assert found.dense_us[2] == pytest.approx(law(2 * 32 * 128, 4))
    gated = from_cost_model(lawful(), weights=3 * 32 * 128, gated=True, paths=(CERTIFIED_2,))
    assert gated.rows == 2
    assert gated.dense_us[0] == pytest.approx(law(3 * 32 * 128, 1), rel=1e-6)
