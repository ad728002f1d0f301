"""`lazyneuron route` from files to files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
from lazyneuron.cli import rows
from lazyneuron.core.errors import DataError, ImplUnavailable
from lazyneuron.route.estimators import LSHRegressor, load_estimator
from tests.cli.command import run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).uniform(-1, 1, (900, 2))
    y = np.abs(x[:, 0]) + x[:, 1]
    for name, part in (("a", slice(0, 400)), ("b", slice(400, 800)), ("t", slice(800, 900))):
        lines = ["u,v,y", *(f"{p!r},{q!r},{r!r}" for p, q, r in np.c_[x, y][part].tolist())]
        Path(f"{name}.csv").write_text("\n".join(lines) + "\n")
        np.savez(f"{name}.npz", x=x[part], y=y[part])
    labels = ["u,v,y", *(f"{p!r},{q!r},{'low' if r < 0.5 else 'high'}" for p, q, r in np.c_[x, y].tolist())]
    Path("labels.csv").write_text("\n".join(labels))
    return tmp_path


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_fit_score_save_and_predict(here: Path, monkeypatch: pytest.MonkeyPatch, capsys, kind: str) -> None:  # type: ignore[no-untyped-def]
    files = (f"a.{kind}", f"b.{kind}")
    status = run(monkeypatch, "route", *files, "--target", "y", "--test", f"t.{kind}", "--out", "m", "--json", "r.json")
    assert status == 0
    facts = json.loads(Path("r.json").read_text())["data"]
    assert facts["rows"] == 800 and facts["features"] == 2 and facts["test score"] > 0.95
    assert "test score" in capsys.readouterr().out
    model = load_estimator(here / "m")
    assert isinstance(model, LSHRegressor)
    assert run(monkeypatch, "route", f"t.{kind}", "--model", "m", "--target", "y", "--predictions", "p.csv") == 0
    x = np.load("t.npz")["x"]
    written = [float(line) for line in Path("p.csv").read_text().splitlines()[1:]]
    np.testing.assert_allclose(written, model.predict(x), rtol=1e-12)


def test_labels(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = run(
        monkeypatch, "route", "labels.csv", "--target", "y", "--classify", "--test", "labels.csv", "--json", "r.json"
    )
    assert status == 0 and json.loads(Path("r.json").read_text())["data"]["test score"] > 0.9


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "is empty"),
        ("x.csv", "u,y\n", "has no row"),
        ("x.csv", "u,v\n1,2\n", "has no column 'y'"),
        ("x.csv", "u,y\n1,2\n3\n", "Line 3 of x.csv has 1 values, not 2"),
        ("x.csv", "u,y\na,2\n", "features that are no numbers"),
        ("x.npz", "no zip", "is not an .npz file"),
        ("x.txt", "u,y", "is none of .csv"),
        ("x.csv", None, "There is no file"),
    ],
)
def test_bad_files(here: Path, monkeypatch: pytest.MonkeyPatch, capsys, name, content, message) -> None:  # type: ignore[no-untyped-def]
    if content is not None:
        Path(name).write_text(content)
    assert run(monkeypatch, "route", name, "--target", "y") == 2
    assert message in capsys.readouterr().err


def test_parquet(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    from pyarrow import parquet

    x, y = np.load("a.npz")["x"], np.load("a.npz")["y"]
    parquet.write_table(pyarrow.table({"u": x[:, 0], "v": x[:, 1], "y": y}), "x.parquet")
    ((got, target),) = rows.read_rows(Path("x.parquet"), target="y")
    assert np.array_equal(got, x) and np.array_equal(target, y)
    Path("bad.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a Parquet file"):
        list(rows.read_rows(Path("bad.parquet"), target="y"))
    assert run(monkeypatch, "route", "x.parquet", "--target", "y", "--test", "t.csv", "--json", "r.json") == 0
    facts = json.loads(Path("r.json").read_text())["data"]
    assert facts["rows"] == 400 and facts["test score"] > 0.9
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImplUnavailable, match=r"lazyneuron\[parquet\]"):
        list(rows.read_rows(Path("x.parquet"), target="y"))


def test_what_is_missing_is_said(here: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(monkeypatch, "route", "a.csv") == 2
    assert "needs --target" in capsys.readouterr().err
    assert run(monkeypatch, "route", "a.csv", "--model", "nowhere") == 2
    assert "does not hold a saved bucket estimator" in capsys.readouterr().err


def test_two_processes_fit_what_one_fits(here: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    for name in "ab":  # one shard a process, in two formats
        x, y = np.load(f"{name}.npz")["x"], np.load(f"{name}.npz")["y"]
        parquet.write_table(pyarrow.table({"u": x[:, 0], "v": x[:, 1], "y": y}), f"{name}.parquet")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "lazyneuron", "route", "a.parquet", "b.csv", "--target", "y"]
    command += ["--test", "t.npz", "--out", "m", "--json", "r.json"]
    ranks = [
        subprocess.Popen(command, env={**os.environ, **places, "RANK": str(rank), "OMP_NUM_THREADS": "1"})
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    facts = json.loads(Path("r.json").read_text())["data"]
    assert facts["rows"] == 800 and facts["test score"] > 0.95
    model = load_estimator(here / "m")
    assert model.score(np.load("t.npz")["x"], np.load("t.npz")["y"]) == pytest.approx(facts["test score"])
