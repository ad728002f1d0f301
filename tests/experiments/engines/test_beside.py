"""Engines in their own processes beside a model here: what they answer is compared, what is missing says why."""

import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lazyneuron.experiments.demo.cases import Case
from lazyneuron.experiments.demo.encoder import embed, padded
from lazyneuron.experiments.demo.quality import quality
from lazyneuron.experiments.engines import engine as room
from lazyneuron.experiments.engines.beside import Effort, Own, beside
from lazyneuron.experiments.engines.engine import ENGINES, Engine
from lazyneuron.experiments.engines.ours import exported
from tests.kernels import needs_kernels

HERE = Path(__file__).parent
IDS = [[1 + (7 * k + j) % 30 for j in range(3 + k % 5)] for k in range(40)]
CASES = tuple(
    Case(lines=n, length=4, batches=tuple(padded([[b, b + 1, b + 2, b + 3]] * n) for b in (1, 9))) for n in (1, 3)
)


class Table(nn.Module):
    """A model whose last hidden state is a row for each token."""

    def __init__(self, *, upside_down: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        rows = torch.randn(32, 8)
        self.rows = nn.Parameter(rows.flip(0) if upside_down else rows)

    def forward(self, input_ids, attention_mask):
        return types.SimpleNamespace(last_hidden_state=self.rows[input_ids])

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir()
        np.save(folder / "table.npy", self.rows.detach().numpy())


@pytest.fixture
def engines(tmp_path, monkeypatch) -> list[Engine]:
    for file in (HERE / "table_worker.py", Path(room.__file__).parent / "encoder_inputs.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(room, "_HERE", tmp_path)
    return [
        Engine(name=form, worker="table_worker.py", format=form, needs="x") for form in ("right", "wrong", "absent")
    ]


def test_every_engine_is_a_row_with_its_agreement(engines):
    original = Table()
    own = {
        "here": Own(model=original, needs="nothing"),
        "ours": Own(model=Table(upside_down=True), needs="y", ours=True),
    }
    rows = beside(
        original, own, cases=CASES, held_out=IDS, calibration=IDS[:5], effort=Effort(rounds=2, runs=2), engines=engines
    )
    by_name = {row["engine"]: row for row in rows}
    assert list(by_name) == ["here", "ours", "right", "wrong", "absent"]
    # the worker pads, pools and reorders by itself: the same table gives the same embeddings, another one another's
    assert by_name["right"]["quality"]["mean_cosine"] == pytest.approx(1.0, abs=1e-6)
    expected = quality(embed(Table(upside_down=True), IDS), embed(original, IDS))
    assert expected.mean_cosine < 0.9
    for name in ("ours", "wrong"):
        assert by_name[name]["quality"]["mean_cosine"] == pytest.approx(expected.mean_cosine, abs=1e-5)
        assert by_name[name]["quality"]["top1_agreement"] == expected.top1_agreement
    assert by_name["absent"]["note"].startswith("does not run: ") and by_name["absent"]["times"] == {}
    assert "a_package_that_nobody_has" in by_name["absent"]["note"]
    assert by_name["right"]["facts"] == {"versions": {"table": "1"}, "settings": {"calibration": 5}}
    for name in ("here", "ours", "right", "wrong"):
        assert set(by_name[name]["times"]) == {"1 x 4", "3 x 4"}
        for times in by_name[name]["times"].values():
            assert 0 < times["low_ms"] <= times["median_ms"] <= times["high_ms"] and times["n"] == 4


def test_an_interpreter_without_packages_makes_rows_with_reasons(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no packages here >&2\nexit 3\n")
    python.chmod(0o755)
    rows = beside(Table(), {}, cases=CASES, held_out=IDS, calibration=IDS[:5], python=python)
    assert [row["engine"] for row in rows] == [engine.name for engine in ENGINES]
    assert all("no packages here" in row["note"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_real_engines_agree_with_a_small_encoder(engine):
    packages = {"openvino_worker.py": ("openvino", "nncf"), "onnxruntime_worker.py": ("onnxruntime", "onnx")}
    for package in packages[engine.worker]:
        pytest.importorskip(package)
    model = small_encoder("gelu")
    (row,) = beside(
        model, {}, cases=CASES, held_out=IDS, calibration=IDS, effort=Effort(rounds=1, runs=1), engines=[engine]
    )
    assert "note" not in row, row
    assert row["quality"]["mean_cosine"] >= LEAST[engine.format]


LEAST = {"fp32": 1 - 1e-6, "bf16": 0.999, "int8 blocks": 0.98, "int8": 0.98}


def small_encoder(activation: str) -> nn.Module:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    return BertModel(BertConfig(vocab_size=64, hidden_act=activation, **shape)).eval()


@pytest.mark.slow
@needs_kernels
def test_the_sparse_model_runs_in_openvino():
    """What was exported answers as the sparse model in torch, from a process without lazyneuron."""
    for package in ("openvino", "nncf"):
        pytest.importorskip(package)
    sparse = small_encoder("relu")
    with exported(sparse, [padded(IDS[i : i + 5]) for i in (0, 5)]) as (engines, notes):
        assert not notes and [engine.format for engine in engines] == ["fp32", "bf16", "int8 blocks", "int8"]
        folders = [engine.exported for engine in engines]
        rows = beside(
            sparse, {}, cases=CASES, held_out=IDS, calibration=IDS, effort=Effort(rounds=1, runs=1), engines=engines
        )
    assert not any(folder.exists() for folder in folders)
    for row, engine in zip(rows, engines, strict=True):
        assert "note" not in row, row
        assert row["ours"] and row["times"]
        assert row["quality"]["mean_cosine"] >= LEAST[engine.format]
