"""Cells of the frontier on a tiny encoder: closed forms, trainings in parts, and going on after an interruption."""

import dataclasses
import json

import pytest

from lazyneuron.blocks import find_blocks
from lazyneuron.experiments.demo.distillation import Network, closed_form, sample_blocks
from lazyneuron.experiments.demo.held_out import HeldOut
from lazyneuron.experiments.reproduce import encoder_frontier as room
from lazyneuron.experiments.reproduce.encoder_frontier import Cell, Data, measure_cell
from lazyneuron.induce import Distillation
from lazyneuron.measure import measure
from tests.experiments.demo.tiny import load

IDS = [[1, *(4 + (k * j) % 60 for j in range(1, 12)), 2] for k in range(1, 41)]


@pytest.fixture
def data(monkeypatch) -> Data:
    monkeypatch.setattr(room, "load_minilm", load)
    model = load().model
    original = Network(model=model, blocks=find_blocks(model))
    held_out = HeldOut(IDS[:20])
    held_out.evaluate(original, label="original")
    return Data(original=original, train=IDS, held_out=held_out, kinds={"first": 15, "second": 5})


@pytest.mark.parametrize("activation", ["relu", "squared_relu", "thresholded_gelu", "offset_gelu"])
def test_closed_forms_fire_as_asked(data, activation):
    samples = sample_blocks(data.original, IDS)
    made = closed_form(data.original, samples, density=0.3, activation=activation, advance=lambda share: None)
    assert {block.activation.kind for block in made.blocks} == {activation}
    # the later blocks see other inputs than those they were calibrated on
    assert measure(made.model, HeldOut(IDS).batches, blocks=made.blocks).density == pytest.approx(0.3, abs=0.05)


def test_a_cell_goes_on_where_it_was_interrupted(data, tmp_path):
    cell = Cell(activation="relu", density=0.3, parts=2, steps=3)
    begun: list[float] = []

    def interrupted(share: float, note: str) -> None:
        begun.append(share)
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_cell(cell, data, tmp_path, interrupted)
    assert len(begun) == 4 and json.loads((tmp_path / cell.name / "state.json").read_text())["done"] == 1
    begun.clear()
    row = measure_cell(cell, data, tmp_path, lambda share, note: begun.append(share))
    assert len(begun) == 3 and min(begun) >= 0.5
    assert row["training"] == "6 steps" and 0.2 < row["density"] < 0.4 and 0 < row["cosine"] <= 1
    whole = measure_cell(cell, data, tmp_path / "at once", lambda share, note: None)
    assert whole["cosine"] == pytest.approx(row["cosine"], abs=1e-4)
    assert (15 * row["cosine, first"] + 5 * row["cosine, second"]) / 20 == pytest.approx(row["cosine"], abs=1e-6)
    assert measure_cell(cell, data, tmp_path, lambda *_: pytest.fail("it trained")) == row


def test_the_closed_form_looks_at_as_many_lines_as_it_is_told(data, tmp_path, monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(room, "sample_blocks", lambda model, ids: seen.append(len(ids)) or sample_blocks(model, ids))
    cells = [Cell(activation="relu", density=0.3, lines=lines) for lines in (10, 30)]
    rows = [measure_cell(cell, data, tmp_path, lambda share, note: None) for cell in cells]
    assert seen == [10, 30] == [row["lines"] for row in rows] and rows[0]["cosine"] != rows[1]["cosine"]
    names = {cell.name for cell in (*room.CELLS, *room._QUICK)}
    assert len(names) == len(room.CELLS) + len(room._QUICK)  # no two share a folder


def test_curves_have_one_closed_form_a_density():
    alone = row(training="none", blocks="as each needs", lines=900)
    rows = [alone, alone | {"lines": 2500}, alone | {"training": "9 steps", "lines": 2500}]
    assert [(c["label"], len(c["x"])) for c in room._curves(rows)] == [("relu, no training", 1), ("relu, 9 steps", 1)]


def test_parts_of_a_training_make_one_line_of_rates():
    whole = Distillation(steps=10, learning_rate=1.0, warmup=0.0)
    parts = [dataclasses.replace(whole, learning_rate=r, last=r and e / r) for r, e in ((1.0, 0.5), (0.5, 0.0))]
    for share in (0.0, 0.2, 0.6, 0.9):
        assert parts[0].rate_at(share) == pytest.approx(whole.rate_at(share / 2))
        assert parts[1].rate_at(share) == pytest.approx(whole.rate_at((1 + share) / 2))


def row(**given):
    return {
        "activation": "relu", "training": "9 steps", "density": 0.28, "cosine": 0.995, "same neighbour": 0.91,
        "processor minutes": 39.0, **given,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "the goal is reached"),
        ({"same neighbour": 0.89}, "the goal is not reached"),
        ({"cosine": 0.98}, "the goal is not reached"),
        ({"processor minutes": 41.0}, "the goal is not reached"),
        ({"density": 0.31}, "No cell has a density of at most 0.30"),
    ],
)
def test_the_finding_says_whether_the_goal_is_reached(given, said):
    assert said in room._finding([row(**given)], 0.9955)
