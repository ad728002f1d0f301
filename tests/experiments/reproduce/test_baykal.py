"""The routing experiments, small: what they measure is what they say."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch

from lazyneuron.core.record import Record
from lazyneuron.experiments.catalogue import NAMES as ALL
from lazyneuron.experiments.catalogue import experiment
from lazyneuron.experiments.experiment import Request
from lazyneuron.experiments.reproduce.baykal import samples as baykal_data
from lazyneuron.experiments.reproduce.baykal.table2 import MaskedClassifier
from lazyneuron.experiments.reproduce.baykal.units import below_dense
from lazyneuron.report import curves_figure
from lazyneuron.route import HyperplaneLSH

NAMES = [name for name in ALL["reproduce"] if name.startswith("baykal-")]


FAST = ("baykal-fig1", "baykal-fig3", "baykal-degree")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_every_experiment_runs_quickly_and_makes_a_record(name: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    seen: list[float] = []
    record = experiment(name, "reproduce").run(
        Request(quick=True, seeds=1, advance=lambda share, note: seen.append(share))
    )
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)
    assert record.data["experiment"] == name and record.data["finding"] and record.data["settings"]["quick"]
    assert len({tuple(row) for row in record.data["rows"]}) == 1  # one set of columns
    curves_figure(Record.from_json(record.to_json()), tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"


def test_the_bucket_error_by_hand() -> None:
    sample = baykal_data.draw("polynomial", rows=500, tests=50, seed=0)
    router = HyperplaneLSH(8, 3, seed=5)
    train, test = router.route(sample.x).indices[:, 0].tolist(), router.route(sample.x_test).indices[:, 0].tolist()
    values = sample.y[:, 0].tolist()
    errors = []
    for bucket, want in zip(test, sample.y_test[:, 0].tolist(), strict=True):
        mates = [v for v, b in zip(values, train, strict=True) if b == bucket]
        errors.append((statistics.mean(mates or values) - want) ** 2)
    assert baykal_data.bucket_error(sample, bits=3, seed=5) == pytest.approx(statistics.mean(errors), rel=1e-6)


def test_a_subspace_stays_inside_the_cube() -> None:
    sample = baykal_data.draw("hypercube", rows=400, tests=10, seed=0, dimension=2)
    assert float(sample.x.abs().max()) <= 1 and int(torch.linalg.matrix_rank(sample.x)) == 2


def test_the_masked_classifier_keeps_so_many_units() -> None:
    model = MaskedClassifier(1, 8, width=32, active=8, classes=10, maps=4)
    kept = []
    model.out.register_forward_pre_hook(lambda module, args: kept.append((args[0] != 0).sum(1)))
    assert model(torch.randn(5, 1, 8, 8)).shape == (5, 10)
    assert int(kept[0].max()) <= 8


def test_figure_3_says_where_lsh_is_below_dense() -> None:
    def said(*below: bool) -> str:
        rows = [{"buckets": 32 * 4**k, "LSH below dense of equal FLOPs": yes} for k, yes in enumerate(below)]
        return below_dense(rows).removeprefix("LSH is ").removeprefix("below a dense layer of equal inference FLOPs ")

    assert said(False, True, True) == "from 128 buckets on"
    assert said(True, False, True) == "at 32 and 512 buckets only"
    assert said(True, False) == "at 32 buckets only"
    assert said(False, False).startswith("not below")
