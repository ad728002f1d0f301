"""Parts of benchmarks that are kept from an earlier run keep their commit."""

from __future__ import annotations

import functools

import pytest

from lazyneuron.core.record import Record
from lazyneuron.experiments.bench import learn, route
from lazyneuron.experiments.bench.parts import commits_of, elsewhere
from lazyneuron.experiments.experiment import Request, benchmark_record
from tests.kernels import needs_kernels


def at(record: Record, commit: str) -> Record:
    return Record.from_json(record.to_json().replace(record.environment.commit, commit))


def test_parts_that_no_commit_is_said_of_have_the_records_own() -> None:
    record = at(benchmark_record("any", title="t", commits={"a": 40 * "c"}), 40 * "d")
    assert commits_of(record, ["a", "b"]) == {"a": 40 * "c", "b": 40 * "d"}
    assert commits_of(None, []) == {}
    assert elsewhere(record, ["b"]) == ""
    assert elsewhere(record, ["a", "b"]) == f"At commit {12 * 'c'}: a."


def test_learning_that_goes_on_says_where_its_rows_are_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def row(name: str) -> learn.Row:
        return {"case": name, "note": "n"}

    monkeypatch.setattr(learn, "_QUICK", (functools.partial(row, "a"), functools.partial(row, "b")))
    monkeypatch.setattr(learn, "apart", lambda case: case())
    kept: list[Record] = []
    whole = learn.run(Request(quick=True, keep=kept.append))
    now = whole.environment.commit
    assert whole.data["commits"] == {"a": now, "b": now} and "At commit" not in learn._section(whole)
    again = learn.run(Request(quick=True, begun=at(kept[0], 40 * "b")))
    assert again.data["commits"] == {"a": 40 * "b", "b": now}
    assert learn._section(again).endswith(f"At commit {12 * 'b'}: a.\n")


@needs_kernels
def test_routing_that_goes_on_says_where_its_parts_are_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("_speed", "_flatness", "output_layers", "compare"):
        monkeypatch.setattr(route, part, lambda *_: [])
    kept: list[Record] = []
    whole = route.run(Request(quick=True, keep=kept.append))
    again = route.run(Request(quick=True, begun=at(kept[1], 40 * "b")))
    now = whole.environment.commit
    assert again.data["commits"] == dict(speed=40 * "b", flatness=40 * "b", output=now, compare=now)
    assert f"At commit {12 * 'b'}: speed, flatness." in route._section(again)
