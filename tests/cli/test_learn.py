"""``lazyneuron learn`` from files."""

from __future__ import annotations

import numpy as np
import pytest

from lazyneuron.core.record import Record
from lazyneuron.learn import cube
from tests.cli import command


def run(monkeypatch, *arguments):
    """The exit status of ``lazyneuron learn`` with these arguments, 0 when it returns."""
    return command.run(monkeypatch, "learn", *arguments)


@pytest.fixture
def table(tmp_path):
    x = (cube.random_points(800, 4, seed=0) > 0).astype(int)
    y = 2.0 + 3.0 * (1 - 2 * (x[:, 0] ^ x[:, 2]))
    path = tmp_path / "table.csv"
    lines = ["a,b,label,c,d", *(f"{r[0]},{r[1]},{v},{r[2]},{r[3]}" for r, v in zip(x, y, strict=True))]
    path.write_text("\n".join(lines))
    np.savez(tmp_path / "table.npz", X=x, y=y)
    return path


def test_a_parity_in_a_csv_file_is_found(monkeypatch, capsys, tmp_path, table):
    assert run(monkeypatch, table, "--target", "label", "--json", tmp_path / "r.json") == 0
    out = capsys.readouterr().out
    assert "Degree 2 (cv)" in out and "uniform or independent inputs" in out
    data = Record.from_json((tmp_path / "r.json").read_text()).data
    assert data["held_out_error"] == pytest.approx(0, abs=1e-12)
    assert {row["product of"]: row["coefficient"] for row in data["coefficients"][:2]} == pytest.approx(
        {"a c": 3.0, "1": 2.0}
    )


def test_an_npz_file(monkeypatch, capsys, table):
    assert run(monkeypatch, table.with_suffix(".npz"), "--degree", "2", "--solver", "lasso") == 0
    assert "x0 x2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.csv"], "There is no file"),
        (["table.txt"], "A table is a .csv or .npz file"),
        (["table.csv", "--target", "z"], "has no column 'z'; it has a, b"),
        (["table.npz", "--target", "a"], "--target names a column of a CSV"),
        (["table.csv", "--held-out", "1.5"], "strictly between 0 and 1"),
        (["table.csv"], "Column 2 has"),
        (["words.csv"], "must hold a header and rows of as many numbers"),
        (["table.csv", "--target", "label", "--solver", "best"], "A solver is one of"),
        (["nan.csv"], "nan.csv holds NaN or infinity"),
    ],
)
def test_bad_input_is_one_sentence(monkeypatch, capsys, tmp_path, table, arguments, said):
    (tmp_path / "table.txt").write_text("")
    (tmp_path / "words.csv").write_text("a,b\n1,two\n")
    (tmp_path / "nan.csv").write_text("a,b\nnan,1\n1,2\n0,3\n1,2\n")
    (tmp_path / "table.csv").write_text(table.read_text().replace("label", "label"))
    if arguments == ["table.csv"]:
        (tmp_path / "table.csv").write_text("a,b,c,d\n" + "\n".join(f"1,0,{i},{i}" for i in range(9)))
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1
