"""The front of time against agreement, its table and its figure."""

import dataclasses
import random

import pytest

from lazyneuron.core.record import Record
from lazyneuron.report import demo_page, engines_figure
from lazyneuron.report.engine_rows import front, reasons, table, versions
from tests.report.records import ENVIRONMENT, demo_data


def row(name, ms, cosine, *, ours=False, case="1 x 60"):
    times = {} if ms is None else {case: {"median_ms": ms, "low_ms": ms, "high_ms": ms, "n": 3}}
    agreement = {"mean_cosine": cosine, "top1_agreement": cosine, "rank_correlation": cosine, "n_lines": 9}
    return {"engine": name, "needs": "nothing", "ours": ours, "times": times, "quality": agreement}


ROWS = [
    row("exact", 20.0, 1.0),
    row("as exact, slower", 21.0, 1.0),
    row("rounding apart", 20.5, 0.99998),
    row("quantised", 5.0, 0.9977),
    row("ours", 4.0, 0.99, ours=True),
    row("worse than ours", 4.5, 0.98),
    {"engine": "absent", "needs": "export", "ours": False, "times": {}, "note": "does not run: no such package"},
]


def test_the_front_by_hand():
    assert front(ROWS, "1 x 60") == ["ours", "quantised", "exact"]
    assert front(ROWS, "32 x 48") == []


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nothing_dominates(seed):
    draw = random.Random(seed)
    rows = [row(str(k), draw.randint(1, 8), draw.randint(1, 8) / 10) for k in range(12)]
    points = {r["engine"]: (r["times"]["1 x 60"]["median_ms"], -r["quality"]["mean_cosine"]) for r in rows}
    kept = {p for p in points.values() if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points.values())}
    assert {points[name] for name in front(rows, "1 x 60")} == kept


def test_the_table_marks_the_front_and_keeps_what_is_missing():
    shown = {line["engine"]: line for line in table(ROWS)}
    assert next(iter(shown)) == "ours" and list(shown)[-1] == "absent"
    assert {name for name, line in shown.items() if line["1 x 60 ms"].endswith("*")} == {"ours", "quantised", "exact"}
    assert shown["absent"]["1 x 60 ms"] == shown["absent"]["cosine"] == "-"
    assert [line["engine"] for line in table(ROWS, in_order=True)] == [r["engine"] for r in ROWS]
    assert reasons(ROWS) == ["absent does not run: no such package"]
    facts = {"versions": {"engine": "1.2"}, "settings": {"threads": 2}}
    assert versions([ROWS[0] | {"facts": facts}]) == "- exact: engine 1.2; threads 2."


def test_page_and_figure_show_every_engine(tmp_path):
    record = Record(kind="demo", data=demo_data() | {"engines": ROWS}, seed=0)
    page = demo_page(dataclasses.replace(record, environment=ENVIRONMENT))
    section = page[page.index("What one would have picked instead") :]
    assert all(r["engine"] in section for r in ROWS)
    assert section.count("<svg") == 1
    engines_figure(record, tmp_path / "engines.png")
    assert (tmp_path / "engines.png").read_bytes().startswith(b"\x89PNG")
    without = demo_page(Record(kind="demo", data=demo_data() | {"engines": []}, seed=0))
    assert "picked instead" not in without
