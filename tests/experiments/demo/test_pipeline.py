"""The whole demo on a tiny model: what it records agrees with what its model does."""

import dataclasses
import json

import pytest
import torch
from typer.testing import CliRunner

import lazyneuron as lazy
from lazyneuron.blocks import find_blocks
from lazyneuron.core.record import Record
from lazyneuron.experiments.demo.output import PAGE, RECORD, write
from lazyneuron.experiments.demo.pipeline import Result, run_demo
from lazyneuron.experiments.demo.settings import Settings
from lazyneuron.experiments.engines.engine import Engine
from tests.experiments.demo.tiny import SETTINGS, load, sources, texts_in


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Result, list[tuple[str, float, str]]]:
    shown: list[tuple[str, float, str]] = []
    text = sources(tmp_path_factory.mktemp("text"))
    return run_demo(SETTINGS, show=lambda *told: shown.append(told), load=load, texts=texts_in(text)), shown


def test_the_record_is_complete(done):
    data = done[0].record.data
    assert [b["name"] for b in data["blocks"]] == ["encoder.layer.0", "encoder.layer.1"]
    assert all(b["density_before"] > 0.99 and 0 < b["density_after"] < 0.35 for b in data["blocks"])
    assert data["quality"]["n_lines"] == SETTINGS.held_out_lines
    labels = [p["label"] for p in data["frontier"]]
    assert len(labels) == len(set(labels)) == 1 + 2 + 1 + 1
    assert [c["case"] for c in data["latency"]] == ["1 x 10", "1 x 60", "32 x 48"]
    for case in data["latency"]:
        rows = {r["variant"]: r for r in case["rows"]}
        assert list(rows) == ["original", "relu dense", "relu int8", "relu accelerated"]
        assert all(0 < r["low_ms"] <= r["median_ms"] <= r["high_ms"] and r["n"] >= 5 for r in rows.values())
        assert case["speedup"] == pytest.approx(rows["original"]["median_ms"] / rows["relu accelerated"]["median_ms"])
        assert case["ceiling"] == pytest.approx(1 / (1 - case["mlp_share"]))
        assert 1 <= case["density_ceiling"] <= 1 / (1 - case["relu_mlp_share"])
    assert data["max_abs_difference"] < 1e-4
    assert data["settings"]["steps_made"] == 4
    json.dumps(data, allow_nan=False)


def test_densities_are_those_of_the_model(done):
    result = done[0]
    blocks = find_blocks(result.model)
    assert [b.activation.kind for b in blocks] == ["offset_gelu", "offset_gelu"]
    mean = sum(b["density_after"] for b in result.record.data["blocks"]) / 2
    assert result.record.data["density"] == pytest.approx(mean)
    assert result.record.data["frontier"][-1]["density"] == pytest.approx(mean)


def test_stages_are_shown_and_timed(done):
    result, shown = done
    stages = list(dict.fromkeys(stage for stage, _, _ in shown))
    assert stages == list(result.record.data["timing_s"]) and len(stages) == 7
    for stage in stages:
        shares = [share for told, share, _ in shown if told == stage]
        assert shares[0] == 0 and shares[-1] == 1 and all(0 <= share <= 1 for share in shares)


def test_files_bring_the_model_back(done, tmp_path):
    result = done[0]
    write(result, tmp_path)
    names = {p.name.partition("-")[0] for p in tmp_path.iterdir()}
    assert names == {RECORD, PAGE, "model", "config.json", "receipts.json"}
    assert Record.from_json((tmp_path / RECORD).read_text()).data["density"] == result.record.data["density"]
    page = (tmp_path / PAGE).read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    fresh = load().model
    lazy.load_(fresh, tmp_path)
    ids = torch.arange(4, 20).reshape(2, 8)
    with torch.no_grad():
        assert torch.equal(fresh(ids).last_hidden_state, result.model(ids).last_hidden_state)


def test_same_seed_same_model(done, tmp_path):
    settings = dataclasses.replace(SETTINGS, closed_form_densities=(), checkpoints=())
    again = run_demo(settings, load=load, texts=texts_in(sources(tmp_path)))
    state, wanted, untrained = (m.state_dict() for m in (again.model, done[0].model, load().model))
    # evaluating more states on the way changes nothing but the order of sums, which Adam's division blows up where a
    # gradient is next to zero: 3e-5 of the way trained, where another seed ends a quarter of that way apart
    assert distance(state, wanted) < 1e-3 * distance(wanted, untrained)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return sum(float((one[name].double() - other[name].double()).square().sum()) for name in one) ** 0.5


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command line over the tiny model."""
    import lazyneuron.experiments.demo.pipeline as room
    from lazyneuron.cli.main import app

    folder = tmp_path / "text"
    folder.mkdir()
    sources(folder)
    real = room.run_demo
    quick = dataclasses.replace(SETTINGS, quick=True)
    monkeypatch.setattr(Settings, "quick_run", staticmethod(lambda *, seed=0: dataclasses.replace(quick, seed=seed)))
    monkeypatch.setattr(
        room,
        "run_demo",
        lambda settings, show, data: real(settings, show=show, load=load, texts=texts_in(folder), data=data),
    )
    return lambda *args: CliRunner().invoke(app, ["demo", "--quick", *args])


def test_command(command, tmp_path):
    out = tmp_path / "out"
    done = command("--out", str(out), "--seed", "3")
    assert done.exit_code == 0, done.output
    for wanted in ("density before", "same neighbour", "relu accelerated", "quick run", str(out / PAGE)):
        assert wanted in done.output
    assert Record.from_json((out / RECORD).read_text()).seed == 3


def test_engines_stand_in_one_table_and_missing_ones_say_why(command, tmp_path, monkeypatch):
    absent = Engine(name="Nowhere fp32", worker="no_such_worker.py", format="fp32", needs="export")
    monkeypatch.setattr("lazyneuron.experiments.demo.comparison.ENGINES", (absent,))
    small = dataclasses.replace(SETTINGS, engines=True, closed_form_densities=(), checkpoints=())
    monkeypatch.setattr(Settings, "quick_run", staticmethod(lambda *, seed=0: small))
    done = command("--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert "What one would have picked instead" in done.output and "Nowhere fp32 does not run" in done.output
    rows = Record.from_json((tmp_path / "out" / RECORD).read_text()).data["engines"]
    assert {"PyTorch fp32", "ours, exact", "Nowhere fp32"} <= {row["engine"] for row in rows}
    (original,) = (row for row in rows if row["engine"] == "PyTorch fp32")
    assert original["quality"]["mean_cosine"] == pytest.approx(1.0) and len(original["times"]) == 3


def test_an_unwritable_folder_is_found_out_before_the_work(command, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lazyneuron.experiments.demo.pipeline.run_demo", lambda *_, **__: pytest.fail("the work had begun")
    )
    (tmp_path / "file").write_text("")
    done = command("--out", str(tmp_path / "file"))
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert "choose another folder" in done.output


def test_ctrl_c_leaves_nothing(command, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lazyneuron.experiments.demo.pipeline.compare", interrupted)
    done = command("--out", str(tmp_path / "out"))
    assert done.exit_code == 130
    assert not (tmp_path / "out").exists()
