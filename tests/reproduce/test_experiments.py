"""Experiments at a size that only shows that they measure what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.core.record import Record
from lazyneuron.induce import DoublyBiased, JSReLU, ShiftedActivation, ZerothBias
from lazyneuron.report import curves_figure
from lazyneuron.reproduce import peng_identity, peng_shifted, peng_vision
from lazyneuron.reproduce.catalogue import EXPERIMENTS, experiment
from lazyneuron.reproduce.classifier import Regime, train_classifier
from lazyneuron.reproduce.experiment import Request
from lazyneuron.reproduce.images import Images, digits

pytest.importorskip("transformers")
SMALL = Regime(width=16, layers=2, heads=2, hidden=32, epochs=2, looks=2, batch=64)


@pytest.fixture
def few() -> Images:
    whole = digits()
    return dataclasses.replace(
        whole,
        train=whole.train[:256],
        train_labels=whole.train_labels[:256],
        test=whole.test[:64],
        test_labels=whole.test_labels[:64],
    )


def test_training_is_a_function_of_the_seed_and_learns(few: Images) -> None:
    regime = dataclasses.replace(SMALL, epochs=60, looks=3)
    model, points = train_classifier(few, regime, recipe=None, seed=1)
    _, again = train_classifier(few, regime, recipe=None, seed=1)
    assert points == again
    assert [p.epoch for p in points] == [20, 40, 60]
    assert points[-1].accuracy > 0.3  # chance is 0.1
    with torch.no_grad():
        logits = model(pixel_values=few.test).logits
    assert points[-1].accuracy == pytest.approx(float((logits.argmax(-1) == few.test_labels).float().mean()))
    assert len(points[-1].blocks) == 2 and points[-1].density == pytest.approx(sum(points[-1].blocks) / 2)


def test_the_recipe_is_in_the_model_and_its_conditions_hold(few: Images) -> None:
    model, _ = train_classifier(few, SMALL, recipe=DoublyBiased(), seed=0)
    assert sum(isinstance(m, JSReLU) for m in model.modules()) == 2
    biases = [m for m in model.modules() if isinstance(m, ZerothBias)]
    assert len(biases) == 2 and all(bool((b.bias != 0).any()) for b in biases)
    norms = [m for name, m in model.named_modules() if name.endswith("layernorm_after")]
    assert len(norms) == 2 and all(bool((n.weight >= 1).all()) and bool((n.bias == 0).all()) for n in norms)


def test_a_loss_that_is_not_finite_stops_the_training(few: Images) -> None:
    broken = dataclasses.replace(few, train=few.train * float("inf"))
    with pytest.raises(DataError, match="The loss is"):
        train_classifier(broken, SMALL, recipe=None, seed=0)


def test_the_vision_record(few: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peng_vision, "load_images", lambda folder: few)
    monkeypatch.setattr(peng_vision, "regime_for", lambda side, *, quick: SMALL)
    seen: list[float] = []
    record = peng_vision.EXPERIMENT.run(Request(seeds=2, advance=lambda share, note: seen.append(share)))
    assert seen[-1] == pytest.approx(1.0) and seen == sorted(seen)
    rows = {row["variant"]: row for row in record.data["rows"]}
    assert list(rows) == list(peng_vision.VARIANTS)
    runs = record.data["settings"]["runs"]
    last = {name: [points[-1]["density"] for points in found] for name, found in runs.items()}
    both = [1 - a / b for a, b in zip(last["all three"], last["vanilla"], strict=True)]
    assert rows["all three"]["relative cut"] == pytest.approx(sum(both) / 2)
    assert rows["vanilla"]["relative cut"] == 0 and rows["vanilla"]["paper"] is None
    curve = next(c for c in record.data["curves"] if c["label"] == "vanilla")
    assert curve["y"][-1] == pytest.approx(sum(last["vanilla"]) / 2)
    assert f"{rows['all three']['relative cut']:.2f}" in record.data["says"]
    again = Record.from_json(record.to_json())
    curves_figure(again, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(DataError, match="reproduce record"):
        curves_figure(Record(kind="demo", data={}, seed=None), tmp_path / "b.png")


def test_the_shifted_record(few: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peng_shifted, "load_images", lambda folder: few)
    monkeypatch.setattr(peng_shifted, "Regime", lambda **_: dataclasses.replace(SMALL, epochs=1, looks=1))
    record = peng_shifted.EXPERIMENT.run(Request(seeds=1))
    assert [(row["dx"], row["dy"]) for row in record.data["rows"]] == list(peng_shifted.CORNERS)
    # at the start pre-activations are near 0: on one side of it lies the flat interval, from 0.1 to 3.1 or its mirror
    for row in record.data["rows"]:
        assert 0 < row["share in flat interval, start"] < 0.6
        assert row["outputs within 1e-6 of dy, end"] >= row["share in flat interval, end"] - 1e-6
    activation = ShiftedActivation("squared_relu", dx=1.6, dy=-1.6)
    assert float(activation(torch.tensor(1.0))) == pytest.approx(-1.6)


def test_the_identity_record(few: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peng_identity, "load_images", lambda folder: few)
    monkeypatch.setattr(peng_identity, "Regime", lambda **_: SMALL)
    record = peng_identity.EXPERIMENT.run(Request(seeds=1))
    for row in record.data["rows"]:
        assert row["by the identity"] == pytest.approx(row["derivative density, last"], rel=1e-6)
        assert row["AS_K, last"] > 0 and row["singular value ratio, last"] > 1
    assert [c["x"] for c in record.data["curves"]] == [[1, 2], [1, 2]]


def test_the_catalogue() -> None:
    assert {"peng-vision", "peng-shifted", "peng-identity"} <= set(EXPERIMENTS)
    with pytest.raises(ConfigError, match="There is no experiment 'fig-9'"):
        experiment("fig-9")
    with pytest.raises(ConfigError, match="At least one seed"):
        Request(seeds=0)
