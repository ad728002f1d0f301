"""Two and four gloo processes against one, and what they say when one of them is wrong or gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lazyneuron.route.affine_hash import AffineHash
from lazyneuron.route.bucket_regression import BucketRegression
from lazyneuron.route.bucket_settings import BucketSettings
from lazyneuron.route.bucket_widths import hash_for
from lazyneuron.route.moments import Frame
from lazyneuron.route.pyramid import Pyramid
from tests.house.rooms import ROOT
from tests.route.distributed_ranks import rows


def launch(kind: str, size: int, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.route.distributed_ranks", kind, str(folder)]
    ranks = [
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, **places, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(size)
    ]
    for process in ranks:
        process.wait(timeout=120)


def alone(kind: str, found: dict[str, torch.Tensor]) -> torch.Tensor:
    """One process's prediction with the same standardisation and hashes, from the rows in their own order."""
    x, y = rows(kind)
    settings = BucketSettings(degree=0, shrinkage=0.0, scale=4, directions="orthogonal", tables=2)
    model = BucketRegression(settings)
    frame = Frame(mean=found["means"], scale=found["scale"], outputs=1, degree=0)
    for number, base in enumerate(found["bases"].tolist()):
        affine: AffineHash = hash_for(frame, hashes=3, metric=None, orthogonal=True, seed=number)
        model.pyramids.append(Pyramid(affine, frame, capacity=settings.capacity, base=base))
    assert torch.equal(torch.cat([p.affine.w.flatten() for p in model.pyramids]), found["hash"])
    model.add(x, y)
    return model.predict(rows("real")[0][:500])


@pytest.mark.parametrize(
    ("size", "kind"), [(2, "exact"), (2, "real"), pytest.param(4, "exact", marks=pytest.mark.slow)]
)
def test_ranks_together_are_one_process(size: int, kind: str, tmp_path: Path) -> None:
    launch(kind, size, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(size)]
    assert all(int(f["rows"]) == 6000 for f in found)
    assert all(torch.equal(f["predictions"], found[0]["predictions"]) for f in found)
    want = alone(kind, found[0])
    if kind == "exact":  # integers add up exactly in any order
        assert torch.equal(found[0]["predictions"], want)
    torch.testing.assert_close(found[0]["predictions"], want, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_the_width_is_chosen_together(size: int, tmp_path: Path) -> None:
    launch("choose", size, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(size)]
    assert all(torch.equal(f["predictions"], found[0]["predictions"]) for f in found)
    asked, y = (part[:500] for part in rows("choose"))
    error = float((found[0]["predictions"] - y).square().mean())
    assert error < 0.2 * float(y.var()) and len(asked) == 500 and int(found[0]["rows"]) == 6000


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        pytest.param("schema", "The ranks disagree on (features, outputs)", marks=pytest.mark.slow),
        pytest.param("nan", "Rank 1 failed: The rows hold NaN", marks=pytest.mark.slow),
        pytest.param("empty", "Rank 1 has no row", marks=pytest.mark.slow),
    ],
)
def test_one_wrong_rank_is_an_error_on_all(kind: str, sentence: str, tmp_path: Path) -> None:
    launch(kind, 2, tmp_path)
    assert [sentence in (tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == [True, True]


@pytest.mark.slow
def test_a_rank_that_dies_is_noticed(tmp_path: Path) -> None:
    launch("die", 2, tmp_path)
    assert "Another rank has gone" in (tmp_path / "0.txt").read_text()
