"""The explain and reproduce commands, in this process."""

from __future__ import annotations

import functools
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from lazyneuron.core.record import Record
from lazyneuron.experiments.reproduce.peng import vision as peng_vision
from lazyneuron.experiments.training.ablation import Ablation
from lazyneuron.experiments.training.images import digits
from lazyneuron.experiments.training.vision import VisionSize, VisionTask
from tests.cli.command import run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    code = """
    import torch
    from torch import nn

    def relu():
        torch.manual_seed(0)
        return nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def linear():
        return nn.Linear(4, 4)
    """
    (tmp_path / "mine_to_explain.py").write_text(textwrap.dedent(code))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((70, 4)).astype("float32"))
    yield tmp_path
    sys.modules.pop("mine_to_explain", None)


def test_explain_prints_and_records_what_the_library_says(here, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    status = run(
        monkeypatch, "explain", "mine_to_explain:relu", "--data", "x.npy", "--batch-size", 35, "--json", "r.json"
    )
    assert status == 0
    out = capsys.readouterr().out
    (block,) = Record.from_json((here / "r.json").read_text()).data["blocks"]
    x = torch.from_numpy(np.load(here / "x.npy"))
    import mine_to_explain  # type: ignore[import-not-found]

    model = mine_to_explain.relu()
    p = model[1](model[0](x))
    assert block["derivative_density"] == pytest.approx(float((p > 0).double().mean()))
    assert block["samples"] == 70 and block["identity_residual"] < 1e-6
    assert f"{block['density']:.3f}" in out
    assert "no labels" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "mine_to_explain:linear", "--data", "x.npy"), "No MLP block was found"),
        (("explain", "mine_to_explain:relu", "--data", "absent.npy"), "There is no file absent.npy"),
        (("explain", "mine_to_explain:relu", "--data", "x.npy", "--json", "x.npy/a"), "Cannot write"),
        (("reproduce", "fig-9"), "There is no experiment 'fig-9'; there are peng-vision"),
        (("reproduce", "peng-vision", "--data", "nowhere"), "has no data_batch_1.bin"),
        (("reproduce", "peng-vision", "--device", "abacus"), "torch cannot use the device 'abacus' here"),
        (("reproduce", "peng-vision", "--figure", "x.npy/a.png"), "Cannot write"),
        (("reproduce", "peng-regime-long", "--so-far", "--folder", "empty"), "holds nothing of these trainings yet"),
        (("reproduce", "peng-regime-long", "--so-far", "--earlier", "absent.json"), "absent.json cannot be read"),
        (("reproduce", "peng-vision", "--steps", 9), "Only peng-regime-... takes --so-far, --steps and --earlier."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(here, monkeypatch, capsys, arguments, message) -> None:  # type: ignore[no-untyped-def]
    assert run(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert len([line for line in err.splitlines() if line.strip()]) == 1


def test_reproduce_lists_and_runs(here, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("transformers")
    assert run(monkeypatch, "reproduce") == 0
    assert "peng-vision: " in capsys.readouterr().out
    tiny = VisionTask(digits(), VisionSize(width=16, layers=1, heads=2, hidden=32))
    small = functools.partial(Ablation, processes=1)
    monkeypatch.setattr(peng_vision, "vision_task", lambda folder, **_: tiny)
    monkeypatch.setattr(peng_vision, "Ablation", small)
    status = run(
        monkeypatch, "reproduce", "peng-vision", "--quick", "--seeds", 1, "--json", "r.json", "--figure", "r.png"
    )
    assert status == 0
    record = Record.from_json((here / "r.json").read_text())
    assert (record.kind, record.data["experiment"]) == ("reproduce", "peng-vision")
    assert (here / "r.png").read_bytes()[:4] == b"\x89PNG"
    out = capsys.readouterr().out
    assert record.data["finding"] in out and "Differs: " in out and "not published" in out
