"""The experiments on sparsely activated classes, at a size that only shows that they measure what they say."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from lazyneuron.core.record import Record
from lazyneuron.experiments.catalogue import NAMES as ALL
from lazyneuron.experiments.catalogue import experiment
from lazyneuron.experiments.experiment import Request
from lazyneuron.experiments.reproduce.awasthi import parities as awasthi_parities
from lazyneuron.learn import cube
from lazyneuron.learn.instances import lifted_parity
from lazyneuron.ops.boolean.reference import columns
from lazyneuron.report import csv_table, curves_figure

NAMES = [f"awasthi-f{i}" for i in range(1, 12)]
RECORDS: dict[str, Record] = {}


@pytest.fixture(params=NAMES)
def record(request: pytest.FixtureRequest) -> Record:
    return quick(request.param)


def quick(name: str) -> Record:
    if name not in RECORDS:
        seen: list[float] = []
        wanted = Request(seeds=2, quick=True, advance=lambda share, note: seen.append(share))
        RECORDS[name] = experiment(name, "reproduce").run(wanted)
        assert seen and all(0 <= share <= 1 for share in seen)
    return RECORDS[name]


def test_all_eleven_are_in_the_catalogue() -> None:
    assert [name for name in ALL["reproduce"] if name.startswith("awasthi")] == NAMES


def test_a_record_has_a_table_a_figure_a_csv_file_and_a_sentence(record: Record, tmp_path: Path) -> None:
    data = Record.from_json(record.to_json()).data
    assert data["finding"].endswith(".") and "nan" not in data["finding"] and "not peer reviewed" in data["differs"]
    curves_figure(record, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    read = list(csv.DictReader(io.StringIO(csv_table(data["rows"]))))
    assert len(read) == len(data["rows"]) and set(read[0]) == set().union(*data["rows"])


def test_tails_stay_below_the_bound_and_the_parity_touches_it() -> None:
    rows = quick("awasthi-f1").data["rows"]
    assert rows[0]["peak"] == pytest.approx(1.0) and rows[0]["at degree"] == 5
    assert all(row["peak"] < 1 for row in rows[1:])


def test_aligned_tables_grow_as_the_square() -> None:
    rows = quick("awasthi-f2").data["rows"]
    aligned = [row["AS"] for row in rows if row["family"] == "aligned"]
    assert aligned[1] / aligned[0] == pytest.approx(4) and aligned[2] / aligned[0] == pytest.approx(16)
    assert all(row["AS / 4k^2W^2"] == pytest.approx(1) for row in rows if row["family"] == "parity")


def test_certificates_do_not_grow_with_the_width() -> None:
    rows = quick("awasthi-f3").data["rows"]
    for row in rows:
        assert row["AS, sparse"] <= min(row["C2"], row["C3"]) <= row["C1"] * (1 + 1e-12) <= row["C0"] * (1 + 1e-9)
    assert rows[0]["C0"] == pytest.approx(rows[2]["C0"]) == pytest.approx(16)


def test_errors_lie_above_the_tail_and_near_it() -> None:
    for row in quick("awasthi-f4").data["rows"]:
        assert 0.85 * row["tail / 4k^2W^2"] < row["error / 4k^2W^2"] < 1.3 * row["tail / 4k^2W^2"] + 1e-3


def test_the_gap_is_the_formula() -> None:
    for row in quick("awasthi-f6").data["rows"]:
        assert abs(row["gap"] - row["exact"]) < 5 * row["standard error"]


def test_the_step_of_a_parity() -> None:
    for row in quick("awasthi-f7").data["rows"]:
        assert row["R^2 at p"] == pytest.approx(1) and row["R^2 below p"] < 0.2
        assert row["rows until D9 sees it"] >= row["sqrt(C(n, p))"]


def test_correlations_vanish_below_half_the_size() -> None:
    for row in quick("awasthi-f8").data["rows"]:
        for d in (1, 2):
            seen = 2 * d >= row["|S|"]
            assert row[f"largest correlation, degree {d}"] == (1.0 if seen else 0.0)
            assert row[f"R^2, degree {d}"] == pytest.approx(float(seen), abs=1e-9)
        assert row["rows for elimination"] < 40


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_monomials_of_the_lift_are_the_products_of_twice_the_degree(degree: int) -> None:
    bits = 5
    y = cube.points(bits)
    lifted = columns(lifted_parity(bits, [0], compact=True).lift(y), degree).astype(int)
    assert np.array_equal(np.unique(lifted, axis=1), np.unique(columns(y, min(2 * degree, bits)).astype(int), axis=1))


def test_elimination_finds_the_secret() -> None:
    for seed in range(5):
        assert 6 <= awasthi_parities._rows_for_elimination(6, 3, seed=seed) <= 48


def test_needed_degrees_are_below_the_certified_ones() -> None:
    for row in quick("awasthi-f9").data["rows"]:
        assert row["needed"] <= min(row["d_A (D3)"], row["D4"], row["ladder"])


def test_certificates_hold_on_trained_networks() -> None:
    for row in quick("awasthi-f10").data["rows"]:
        assert row["AS"] <= min(row["C2"], row["C3"])


def test_rademacher_values_lie_below_their_bounds() -> None:
    for row in quick("awasthi-f11").data["rows"]:
        assert row["clusters, exact"] <= min(row["D10"], row["dense"], row["LSJGH"], row["trivial"])
        assert math.isfinite(row["D10"])
