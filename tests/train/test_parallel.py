"""Two processes train as one does: DDP, FSDP2 and tensor parallelism, with a recipe, its projection, a penalty whose
strength follows the density of all, and a resume on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.house.rooms import ROOT
from tests.train.parallel_training import BOUND, RESUMED, STEPS, run

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
KINDS = ("ddp", "fsdp", "tensor", "ddp-dense", "fsdp-dense")  # the last two with packed activations


def train(folder: Path, kinds: tuple[str, ...], *, processes: int, which: str) -> dict[str, list[dict]]:
    """What a training of so many processes did, by kind."""
    if processes == 1:
        return {kind: run("one", folder / kind, which=which) for kind in kinds}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command += ["-m", "tests.train.parallel_training", str(folder), which, *kinds]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000] + done.stderr[-2000:]
    return {kind: json.loads((folder / f"{kind}.json").read_text()) for kind in kinds}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def runs(folder):
    """What one process and several did; each training was stopped once and resumed from its checkpoint."""
    found = train(folder, KINDS, processes=2, which="both")
    return {**found, "one": train(folder, ("one",), processes=1, which="both")["one"]}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_one_process(runs, kind):
    for part in (0, 1):
        assert runs[kind][part]["strengths"] == pytest.approx(runs["one"][part]["strengths"], rel=1e-4)
        assert len(set(runs[kind][part]["strengths"])) > 4
        assert runs[kind][part]["losses"] == pytest.approx(runs["one"][part]["losses"], abs=1e-5)
        assert runs[kind][part]["sum"] == pytest.approx(runs["one"][part]["sum"], rel=1e-6)
    assert len(runs[kind][0]["losses"]) == runs[kind][1]["resumed"] == RESUMED
    assert len(runs[kind][1]["losses"]) == STEPS - RESUMED


@pytest.mark.parametrize("kind", ["one", *KINDS])
def test_constraints_hold_and_bite(runs, kind):
    last = runs[kind][1]
    assert min(last["scales"]) == 1.0 and min(last["moved"]) > 0
    assert max(last["biases"]) <= BOUND * last["largest_scale"] and max(last["biases"]) > 0.999 * BOUND
    assert all(0.3 < d < 0.7 for d in last["densities"]) and len(last["densities"]) == STEPS - RESUMED


def test_as_many_processes_resume_bit_for_bit(runs):
    for kind in ("one", *KINDS):
        first, second = runs[kind]
        assert second["state"] == first["state"]


def test_each_process_writes_its_own_pieces_and_nothing_is_pickled(runs, folder):
    names = sorted(path.name.rpartition("-")[0] or path.name for path in (folder / "fsdp").glob("step-*/*"))
    assert names == ["checkpoint.json", "pieces-0", "pieces-1", "rank-0", "rank-1"]
    sizes = {p.name[:8]: p.stat().st_size for p in (folder / "fsdp").glob("step-*/pieces-*")}
    assert max(sizes.values()) < 0.7 * sum(sizes.values())


def resharded(runs, folder, place, *, kind: str, onto: str, processes: int) -> None:
    shutil.copytree(folder / kind, place / onto)
    (second,) = train(place, (onto,), processes=processes, which="second")[onto]
    first, reference = runs[kind][0], runs["one"][1]
    assert second["resumed"] == RESUMED and second["state"] == first["state"]
    assert second["losses"] == pytest.approx(reference["losses"], abs=1e-5) and second["order"] == reference["order"]
    assert second["sum"] == pytest.approx(reference["sum"], rel=1e-6)
    alike, apart = zip(*second["draws"], strict=True)
    assert set(alike) == {first["draws"][0][0]}
    saved = {draw for _, draw in first["draws"]}
    if len(saved) in (1, processes):
        assert set(apart) == saved
    else:  # another number of processes: each begins anew
        assert len(set(apart)) == processes and not saved & set(apart)


@pytest.mark.parametrize("kind", ["fsdp", "tensor"])
def test_a_single_process_resumes_what_two_shards_saved(runs, folder, tmp_path, kind):
    resharded(runs, folder, tmp_path, kind=kind, onto="one", processes=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "onto", "processes"),
    [
        ("one", "fsdp", 2),
        ("one", "ddp", 2),
        ("fsdp", "fsdp", 4),
        ("fsdp", "ddp", 2),
        ("ddp", "one", 1),
        ("ddp", "fsdp", 4),
        ("tensor", "tensor", 4),
        ("tensor", "fsdp", 2),
        ("fsdp", "tensor", 2),
    ],
)
def test_another_number_of_processes_resumes(runs, folder, tmp_path, kind, onto, processes):
    resharded(runs, folder, tmp_path, kind=kind, onto=onto, processes=processes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_resume_what_four_saved(runs, tmp_path_factory, tmp_path, kind):
    many = tmp_path_factory.mktemp("four")
    four = train(many, (kind,), processes=4, which="first")
    resharded({**runs, kind: four[kind]}, many, tmp_path, kind=kind, onto=kind, processes=2)


@pytest.mark.slow
def test_damage_of_one_shard_is_refused_by_every_process(runs, folder, tmp_path):
    shutil.copytree(folder / "fsdp", tmp_path / "fsdp")
    (file,) = tmp_path.glob("fsdp/step-*/pieces-1-*")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(AssertionError, match=r"CheckpointError.*pieces-1-.* is not the file that was saved"):
        train(tmp_path, ("fsdp",), processes=2, which="second")
