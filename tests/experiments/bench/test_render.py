"""From a record to tables and to the list of goals that are missed."""

import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.bench.blocks import page, view
from lazyneuron.experiments.bench.blocks.goals import matches, read_goals, shortfalls
from tests.experiments.bench.records import compared, record, row

GOAL = {
    "case": "one token",
    "where": {"tokens": [1], "dtype": ["float32"], "gated": [False]},
    "column": "vs_dense",
    "at_least": 4.5,
}


def test_a_planted_shortfall_is_listed():
    rows = [row(), row(shape="2048 x 8192", vs_dense=4.49), row(tokens=2, vs_dense=0.1)]
    (found,) = shortfalls(rows, [GOAL])
    assert found == {
        "case": "one token",
        "row": "2048 x 8192, float32, 1 token, density 0.05",
        "column": "vs_dense",
        "wanted": "at least 4.5",
        "measured": 4.49,
    }


def test_a_goal_that_is_met_is_not_listed():
    assert shortfalls([row(vs_dense=4.5)], [GOAL]) == []


@pytest.mark.parametrize(
    ("limit", "value", "missed"),
    [
        ({"above": 1.0}, 1.0, True),
        ({"above": 1.0}, 1.01, False),
        ({"at_most": 1.25}, 1.26, True),
        ({"at_most": 1.25}, 1.25, False),
        ({"at_least": 2.0}, 1.99, True),
    ],
)
def test_limits(limit, value, missed):
    goal = {key: GOAL[key] for key in ("case", "where")} | {"column": "over_ceiling"} | limit
    assert bool(shortfalls([row(over_ceiling=value)], [goal])) is missed


def test_a_goal_without_a_row_and_a_row_without_a_figure_are_listed():
    assert shortfalls([row(tokens=3)], [GOAL])[0]["row"] is None
    failed = {k: v for k, v in row(reason="Out of memory.").items() if k != "vs_dense"}
    assert shortfalls([failed], [GOAL])[0]["measured"] is None


def test_only_all_threads_count():
    assert shortfalls([row(threads=1, vs_dense=1.0), row()], [GOAL]) == []


def test_dense_has_no_ceiling_to_miss():
    goal = {"case": "c", "where": {"tokens": [1]}, "column": "over_ceiling", "at_most": 1.25}
    assert shortfalls([row(ours="dense", over_ceiling=None)], [goal]) == []
    assert shortfalls([row(reason="Wrong.", over_ceiling=None)], [goal])


def test_the_goals_are_readable_and_name_columns_that_exist():
    goals = read_goals()
    assert len(goals) >= 15
    for goal in goals:
        assert goal["column"] in row()
        assert sum(name in goal for name in ("at_least", "above", "at_most")) == 1
        assert matches(row(), goal["where"]) in (True, False)  # every column is known


def test_gated_and_sparse_are_read_off_a_row():
    assert matches(row(shape="8 x 16 gated", density=1.0), {"gated": [True], "sparse": [False]})
    assert not matches(row(), {"gated": [True]})


def test_a_row_that_could_not_be_measured_is_dashes_and_a_reason():
    facts = {k: row()[k] for k in ("shape", "dtype", "tokens", "density", "threads")}
    shown = view.case_row(facts | {"reason": "Out of memory."})
    assert shown["remark"] == "Out of memory." and shown["vs dense"] == "-" and shown["ours us"] is None


def test_a_noisy_row_says_what_was_measured_before():
    assert view.remark(row(noisy=True, first={"vs_dense": 7.0})) == "noisy once; measured before: 7.00x"
    assert view.remark(row(noisy=True, noisy_again=True, first={"vs_dense": 7.0})).startswith("noisy twice")
    assert view.remark(row()) is None
    assert view.remark(row(ours_at_the_end="dense")) == "went over to dense"


def test_a_terminal_gets_fewer_columns_and_the_remarks_below():
    shown = view.short_row(row(flop_ceiling_us=190.0))
    assert shown["ceiling us"] == 190.0 and shown["vs dense"] == "5.00x" and shown["error"] == "1e-6"
    assert len(shown) < len(view.case_row(row()))
    facts = {k: row()[k] for k in ("shape", "dtype", "tokens", "density", "threads")}
    assert view.short_row(facts | {"reason": "Out of memory."})["ceiling us"] is None
    assert view.remarks([row(), facts | {"reason": "Out of memory."}]) == ["1 token, density 0.05: Out of memory."]


def test_target_rows_by_hand():
    rows = [row(), row(tokens=16, vs_dense=2.5), row(density=1.0, vs_dense=1.0), row(dtype="bfloat16", tokens=2)]
    (shown,) = view.target_rows(rows)
    assert shown["block"] == "1024 x 4096, float32, 2 threads"
    assert (shown["1 token"], shown["16 tokens"], shown["4 tokens"]) == ("5.00x", "2.50x", "-")
    assert (shown["1 token, vs int8"], shown["1 token, all fire"]) == ("1.50x", "1.00x")


def test_baselines_stand_beside_their_quality():
    groups = view.baseline_groups([row(), compared(1, 2.0), compared(16, 0.5)])
    ((name, group),) = groups.items()
    assert name == "1024 x 4096, float32, 2 threads, density 0.05" and len(group) == 2
    shown = {r["method"]: r for r in view.baseline_rows(group)}
    assert (shown["teal"]["1 token"], shown["teal"]["16 tokens"]) == ("2.00x", "0.500x")
    assert (shown["teal"]["relative error"], shown["teal"]["firing missed"]) == ("0.050 to 0.20", "0.40")
    assert shown["csr"]["1 token"] == "-" and shown["int8"]["added MiB"] == "-4.0"
    assert view.reasons(group) == ["csr (1 token, 16 tokens): No CSR product here."]


def test_the_page_in_order():
    text = page.grid_page(record([row(vs_dense=4.0), compared(4, 2.0), row(shape="8 x 16")]))
    order = ["Synthetic", "### Target cases", "### What falls short", "### Against other methods", "### The whole grid"]
    places = [text.index(title) for title in order]
    assert places == sorted(places)
    assert "**1 token, density 0.05, float32: vs dense at least 4.5.**" in text
    assert "| 1024 x 4096, float32, 1 token, density 0.05 | 4.00 |" in text
    assert "not measured" in text
    assert "- csr (4 tokens): No CSR product here." in text
    assert "**8 x 16, float32, 2 threads**" in text
    assert "remark" not in text  # a column in which no row has anything is left out


def test_goals_that_are_all_met_are_a_sentence(monkeypatch):
    monkeypatch.setattr(page, "read_goals", lambda: [GOAL])
    assert page.shortfalls_text([row()]).startswith("Every goal")


def test_a_record_of_an_older_version_is_refused():
    with pytest.raises(DataError, match="older version"):
        page.grid_page(record([{"shape": "1 x 1"}]))
