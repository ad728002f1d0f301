"""Files, names and values that a command cannot use: one sentence on standard error, exit 2, nothing written."""

import shlex

import numpy as np
import pytest
import torch

from lazyneuron.cli.accelerate import _difference
from tests.cli.command import run

MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))

def broken():
    model = nn.Sequential(build(), build())
    model[0][0].bias.data[3] = float("nan")
    return model

def bare():
    return nn.Linear(3, 3)
"""
TEXTS = {
    "hostile_model.py": MODEL,
    "empty.csv": "",
    "header.csv": "a,b\n",
    "na\u00efve \u6570.csv": "a,b\n1,2\n3,4\n5,6\n7,8\n",
    "ragged.csv": "a,b\n1,2\n3\n",
    "nan.csv": "a,b\nnan,2\n3,1\n1,1\n2,2\n",
    "huge.csv": "a,b\n1,2\n1,1e400\n3,3\n2,2\n",
    "lonely.csv": "a\n1\n2\n",
    "twice.csv": "a,a\n1,2\n3,4\n",
    "text.csv": "a,b\nx,1\n",
    "text.npy": "hello",
    "text.parquet": "hello",
    "broken.jsonl": "{not json\n",
    "hf/config.json": "{}",
    "hf/model.safetensors": "x",
    "folder/inside.txt": "x",
}
WRONG = {
    "measure hostile_model:build --data": {
        "missing.npy": "no file missing.npy",
        "folder": "is a folder",
        "folder/missing.npy": "no file",
        "x.npy/y.npy": "Cannot read",
        "empty.csv": "is empty",
        "bytes.txt": "binary file",
        "latin.txt": "not UTF-8: byte 0xe9 at offset 0",
        "text.npy": "not a .npy file",
        "broken.jsonl": "Line 1 of broken.jsonl",
        "'na\u00efve \u6570.csv'": "has no tokenizer",
        "wide.npy": "cannot run on this batch",
        "x.npy --json folder": "is a folder; name a file",
        "x.npy --json x.npy/a.json": "Cannot write",
        "x.npy --threshold nan": "got nan",
    },
    "measure --data x.npy": {
        "hostile_model:missing": "has no 'missing'",
        "missing_module:build": "Cannot import",
        "missing": "There is no model",
        "hostile_model:bare": "No MLP block",
        "hostile_model:build@missing": "does not hold a saved model",
        "hf": "Cannot load the model in hf",
        "folder": "no config.json",
    },
    "sparsify hostile_model:build --recipe": {
        "nope": "is not known",
        "relufy --set activation=nope": "Unknown activation",
        'relufy --set \'activation=["fatrelu", "x"]\'': "an activation is its name and numbers",
        "relufy --set 'activation=[]'": "an activation is its name and numbers",
        "keep-top --set density=NaN": "fraction between 0 and 1",
        "keep-top --set density=0.2 --set group=x": "wrong kind",
        "threshold --set density=0.2 --data missing.txt": "no file",
        "relufy --set activation=squared_relu --out x.npy": "Cannot write",
    },
    "learn": {
        "missing.csv": "There is no file",
        "folder": "There is no file",
        "empty.csv": "must hold a header",
        "header.csv": "must hold a header",
        "bytes.csv": "must hold a header",
        "ragged.csv": "must hold a header",
        "nan.csv": "holds NaN or infinity",
        "huge.csv": "holds NaN or infinity",
        "text.csv": "could not convert",
        "texts.npz": "X and y hold numbers",
        "'na\u00efve \u6570.csv' --target z": "no column 'z'",
        "'na\u00efve \u6570.csv' --seed -5": "got '-5'",
        "'na\u00efve \u6570.csv' --held-out nan": "strictly between 0 and 1",
    },
    "route --target b": {
        "missing.csv": "no file",
        "folder": "is none of",
        "empty.csv": "is empty",
        "header.csv": "has no row",
        "bytes.csv": "Cannot read",
        "ragged.csv": "Line 3",
        "nan.csv": "holds NaN or infinity",
        "huge.csv": "holds NaN or infinity",
        "text.csv": "no numbers",
        "twice.csv": "names a column twice",
        "lonely.csv": "no column 'b'",
        "text.parquet": "Parquet",
        "'na\u00efve \u6570.csv' --degree 7": "got 7",
        "'na\u00efve \u6570.csv' --test missing.csv": "no file",
        "'na\u00efve \u6570.csv' --out x.npy": "Cannot write",
        "'na\u00efve \u6570.csv' --model folder": "does not hold",
    },
    "route --target a": {"lonely.csv": "no column besides the target"},
    "sweep --out points.jsonl": {
        "nope": "A task is digits",
        "missing_module:train": "no task",
        "digits --set x": "name=value",
        "digits --set nope=1": "does not take these settings",
    },
    "bench": {"--shape x": "A shape is written", "--density 2": "got 2", "--against nope": "got 'nope'"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    here = tmp_path_factory.mktemp("hostile")
    for name, text in TEXTS.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text, encoding="utf-8")
    for name in ("bytes.txt", "bytes.csv"):
        (here / name).write_bytes(bytes(range(256)))
    (here / "latin.txt").write_bytes(b"\xe9")
    generator = np.random.default_rng(0)
    np.save(here / "x.npy", generator.standard_normal((16, 8), dtype=np.float32))
    np.save(here / "wide.npy", generator.standard_normal((16, 9), dtype=np.float32))
    np.savez(here / "texts.npz", X=np.array([["a"], ["b"]]), y=np.array([1.0, 2.0]))
    return here


@pytest.mark.parametrize("command", WRONG)
def test_one_sentence_and_nothing_written(files, monkeypatch, capsys, command):
    monkeypatch.chdir(files)
    before = sorted(files.rglob("[!_]*"))
    for arguments, said in WRONG[command].items():
        status = run(monkeypatch, *shlex.split(f"{command} {arguments}"))
        out, err = capsys.readouterr()
        assert status == 2, f"{command} {arguments}: {err}"
        assert said in err and err.count("\n") == 1 and "Traceback" not in err, f"{command} {arguments}: {err}"
        assert not out
    after = [path for path in sorted(files.rglob("[!_]*")) if "__pycache__" not in path.parts]
    assert after == [path for path in before if "__pycache__" not in path.parts]


def test_the_largest_difference_sees_nan_on_one_side_only():
    inf, nan = float("inf"), float("nan")
    a = torch.tensor([1.0, nan, inf])
    assert _difference(a, a.clone()) == 0
    assert _difference(a, torch.tensor([1.5, nan, inf])) == 0.5
    assert _difference(a, torch.tensor([nan, nan, inf])) == inf
    assert _difference((a,), (torch.tensor([1.0, 2.0, inf]),)) == inf


@pytest.mark.parametrize(
    "line",
    [
        "measure hostile_model:broken --data x.npy",
        "accelerate hostile_model:broken --data x.npy",
        "sparsify hostile_model:broken --recipe relufy --set activation=squared_relu",
    ],
)
def test_a_block_that_holds_nan_is_in_the_table_with_its_reason(files, monkeypatch, capsys, line):
    monkeypatch.chdir(files)
    assert run(monkeypatch, *line.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [row for row in lines if row.split()[0] == "0.0"], "its row"
    assert "Its weight or bias holds NaN or infinity; load a sound one." in "\n".join(lines)
