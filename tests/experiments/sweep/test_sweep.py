"""Sweeps that are stopped, resumed and spread; and the points that none beats."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.experiments.sweep import Finished, grid, pareto, read_settings, sweep, sweep_record
from lazyneuron.experiments.training.digits_point import STRENGTHS, train_point, variant_of
from lazyneuron.report import frontier_figure, frontier_rows
from tests.experiments.sweep import toy
from tests.house.rooms import ROOT
from tests.house.test_cli import run

TOY = "tests.experiments.sweep.toy:point"


def calls(log):
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_pareto_points_by_brute_force(points):
    def beaten(a):
        return any(b[0] <= a[0] and b[1] >= a[1] and b != a for b in points)

    found = pareto(points)
    assert {points[k] for k in found} == {p for p in points if not beaten(p)}
    assert len({points[k] for k in found}) == len(found) and [points[k][0] for k in found] == sorted(
        points[k][0] for k in found
    )


def test_grids_are_all_combinations_once():
    points = grid({"a": [1, 2, 1], "b": ["x", None]})
    assert points == [{"a": 1, "b": "x"}, {"a": 1, "b": None}, {"a": 2, "b": "x"}, {"a": 2, "b": None}]
    with pytest.raises(ConfigError, match="'a' has no value"):
        grid({"a": []})
    assert read_settings(["a=1,2.5,true,word,null", "b=1e-3"]) == {"a": [1, 2.5, True, "word", None], "b": [0.001]}
    for wrong in (["a"], ["a="], ["a=1,,2"], ["1a=2"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError):
            read_settings(wrong)


def test_finished_points_are_skipped_and_failures_tried_again(tmp_path):
    file, log = tmp_path / "sweep.jsonl", tmp_path / "log"
    points = grid({"strength": [0.1, "bad", 0.2], "log": [str(log)]})
    first = sweep(TOY, points, file=file, processes=1)
    assert [r.error for r in first] == [None, "ValueError: it diverged", None]
    assert first[0].density == pytest.approx(0.4) and first[2].quality == pytest.approx(0.96)
    assert first[0].facts == {"loss": 3.0}
    again = sweep(TOY, [*points, {"strength": 0.3, "log": str(log)}], file=file, processes=1)
    assert [c[0] for c in calls(log)] == ["0.1", "bad", "0.2", "bad", "0.3"]
    assert again[:1] == first[:1] and again[3].density == pytest.approx(0.2)


def test_processes_have_one_thread_each_and_results_keep_their_order(tmp_path):
    log = tmp_path / "log"
    points = grid({"strength": [0.4, 0.1, 0.3], "log": [str(log)], "pause": [0.3]})
    found = sweep(toy.point, points, file=tmp_path / "s.jsonl", processes=2)
    assert [r.settings["strength"] for r in found] == [0.4, 0.1, 0.3]
    others = {c[3] for c in calls(log)} - {str(os.getpid())}
    assert {c[2] for c in calls(log)} == {"1"} and len(calls(log)) == 3
    assert others == {c[3] for c in calls(log)} and len(others) <= 2  # a slow machine may leave all to one of the two


def test_a_killed_sweep_goes_on(tmp_path):
    file, log = tmp_path / "sweep.jsonl", tmp_path / "log"
    points = grid({"strength": [0.1, 0.2, 0.3, 0.4], "log": [str(log)]})
    code = f"from lazyneuron.experiments.sweep import sweep; sweep({TOY!r}, {[{**p, 'pause': 0.2} for p in points]!r}, "
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", code + f"file={str(file)!r}, processes=1)"]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        while not file.exists() or file.read_text().count("\n") < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    with file.open("a") as torn:
        torn.write('{"task": "tests.sw')  # as if the kill had come in the middle of a line
    done = file.read_text().count("\n")
    before = len(calls(log))
    points = [{**p, "pause": 0.2} for p in points]
    found = sweep(TOY, points, file=file, processes=1)
    assert len(calls(log)) - before == 4 - done and [r.density for r in found] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 4


def test_files_and_tasks_that_do_not_fit_are_named(tmp_path):
    file = tmp_path / "s.jsonl"
    sweep(TOY, [{"strength": 0.1}], file=file, processes=1)
    with pytest.raises(
        ConfigError,
        match=r"is a sweep of tests.experiments.sweep.toy:point, not of tests.experiments.sweep.toy:nothing",
    ):
        sweep("tests.experiments.sweep.toy:nothing", [{"strength": 0.1}], file=file)
    good = json.loads(file.read_text())
    wrong = [{"density": float("nan")}, {"density": 2}, {"density": None}, {"quality": "x"}, {"facts": {"a": [1e999]}}]
    wrong += [{"facts": 3}, {"seconds": []}, {"settings": [1]}, {"task": None}, {"error": 3}]
    for text in ("no json", "[" * 100_000, "3", *(json.dumps(good | part) for part in wrong)):
        file.write_text(text + "\n")
        with pytest.raises(DataError, match=r"Line 1 of .* is no point of a sweep"):
            sweep(TOY, [{"strength": 0.1}], file=file)
    for name, message in (
        ("nothing", "A task is digits, or package.module:callable"),
        ("tests.experiments.sweep.toy:missing", "There is no task"),
        ("tests.experiments.sweep.no_module:f", "There is no task"),
        ("tests.experiments.sweep.toy:number", "is a int, not a function"),
    ):
        with pytest.raises(ConfigError, match=message):
            sweep(name, [{"strength": 0.1}], file=tmp_path / "new.jsonl")
    with pytest.raises(ConfigError, match=r"does not take these settings .*; it takes strength, seed, pause, log"):
        sweep(TOY, [{"power": 1}], file=tmp_path / "new.jsonl")
    with pytest.raises(ConfigError, match="at least one point"):
        sweep(TOY, [], file=tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize(
    ("task", "message"),
    [("nothing", "got \\['density'\\]"), ("dense", r"fraction in \[0, 1\], got 50"), ("lost", "finite number.*nan")],
)
def test_results_without_meaning_are_failures(tmp_path, task, message):
    (found,) = sweep(f"tests.experiments.sweep.toy:{task}", [{"strength": 1}], file=tmp_path / "s.jsonl", processes=1)
    with pytest.raises(DataError, match=message):
        sweep_record([found])


def test_a_process_that_dies_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="A process was killed, perhaps for want of memory"):
        sweep("tests.experiments.sweep.toy:killed", grid({"strength": [1, 2]}), file=tmp_path / "s.jsonl", processes=2)


def test_a_record_means_over_seeds_and_names_the_frontier(tmp_path):
    points = grid({"strength": [0.1, 0.3, -0.1, "bad"], "seed": [0, 1], "pause": [0.0]})
    record = sweep_record(sweep(TOY, points, file=tmp_path / "s.jsonl", processes=1), quality="accuracy")
    assert record.data["frontier"] == ["strength 0.3", "strength 0.1"]  # -0.1 is denser and no better
    row = record.data["rows"][0]
    assert (row["seeds"], row["density"], row["density_low"]) == (2, pytest.approx(0.405), pytest.approx(0.4))
    assert [r["Pareto"] for r in frontier_rows(record)] == ["yes", "yes", ""] and len(record.data["failed"]) == 2
    frontier_figure(record, tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    options = ["--set", "strength=0.1,0.3,bad", "--set", "seed=0,1", "--out", str(tmp_path / "s.jsonl")]
    extra = ["--json", str(tmp_path / "r.json"), "--figure", str(tmp_path / "f.png"), "--processes", "1"]
    assert run(monkeypatch, "sweep", TOY, *options, *extra, "--quality", "accuracy") == 0
    out = capsys.readouterr().out
    assert "Pareto points: strength 0.3; strength 0.1." in out and "Failed: strength bad, seed 0: ValueError" in out
    assert json.loads((tmp_path / "r.json").read_text())["kind"] == "sweep" and (tmp_path / "f.png").exists()
    more = ["--set", "strength=0.4", "--out", str(tmp_path / "s.jsonl"), "--processes", "1"]
    assert run(monkeypatch, "sweep", TOY, *more) == 0  # the points of both commands make one frontier
    assert "Pareto points: strength 0.4; strength 0.3; strength 0.1." in capsys.readouterr().out
    assert run(monkeypatch, "sweep", "nothing", "--out", str(tmp_path / "t.jsonl")) == 2
    assert run(monkeypatch, "sweep", TOY, "--set", "strength", "--out", str(tmp_path / "t.jsonl")) == 2


def test_recipes_of_the_digits():
    assert variant_of("vanilla", None).recipe is None and variant_of("vanilla", None).pressure is None
    only = variant_of("zeroth-bias", 0.3).recipe
    assert (only.zeroth_bias, only.bound, only.jsrelu, only.norm_floor) == (True, 0.3, False, None)
    floor = variant_of("norm-floor", 2).recipe
    assert (floor.norm_floor, floor.zeroth_bias, floor.jsrelu) == (2.0, False, False)
    assert variant_of("doubly-biased", 1.5).recipe.norm_floor == 1.5
    both = variant_of("doubly-biased-target", 0.1)
    assert both.recipe.jsrelu and both.pressure.target.density == 0.1
    for recipe, kind in STRENGTHS.items():
        assert variant_of(recipe, None if kind is None else 0.2).name == recipe
    for recipe, strength in (("vanilla", 0.1), ("target", None), ("other", None)):
        with pytest.raises(ConfigError):
            variant_of(recipe, strength)


@pytest.mark.slow
def test_a_point_on_the_digits():
    found = train_point("doubly-biased", epochs=1)
    assert 0.2 < found["density"] < 0.7 and found["quality"] > 0.15 and found["loss"] < 2.4


def test_equal_accuracies_are_no_pareto_points_by_rounding():
    triples = [t for t in itertools.combinations_with_replacement(range(340, 359), 3) if sum(t) == 1026]
    means = {t: statistics.fmean(hits / 359 for hits in t) for t in triples}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    assert means[low] < means[high]  # as floats, although both are 1026 of 1077
    found = [
        Finished(task="t", settings={"recipe": name, "seed": seed}, density=density, quality=hits / 359)
        for name, density, triple in (("sparse", 0.1, low), ("dense", 0.2, high))
        for seed, hits in enumerate(triple)
    ]
    assert sweep_record(found).data["frontier"] == ["recipe sparse"]
