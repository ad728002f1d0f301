"""Two processes train as one does: DDP and FSDP2, with a recipe, its projection, and a resume on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.house.rooms import ROOT
from tests.train.parallel_training import BOUND, RESUMED, STEPS, run

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process, DDP and FSDP2 did; each was stopped once and resumed from its checkpoint."""
    folder = tmp_path_factory.mktemp("parallel")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command += ["-m", "tests.train.parallel_training", str(folder), "ddp", "fsdp"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {kind: json.loads((folder / f"{kind}.json").read_text()) for kind in ("ddp", "fsdp")}
    return {**found, "one": run("one", folder)}


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_losses_are_those_of_one_process(runs, kind):
    for part in (0, 1):
        assert runs[kind][part]["losses"] == pytest.approx(runs["one"][part]["losses"], abs=1e-5)
        assert runs[kind][part]["sum"] == pytest.approx(runs["one"][part]["sum"], rel=1e-6)
    assert len(runs[kind][0]["losses"]) == runs[kind][1]["resumed"] == RESUMED
    assert len(runs[kind][1]["losses"]) == STEPS - RESUMED


@pytest.mark.parametrize("kind", ["one", "ddp", "fsdp"])
def test_constraints_hold_and_bite(runs, kind):
    last = runs[kind][1]
    assert min(last["scales"]) == 1.0 and min(last["moved"]) > 0
    assert max(last["biases"]) <= BOUND * last["largest_scale"] and max(last["biases"]) > 0.999 * BOUND
    assert all(0.3 < d < 0.7 for d in last["densities"]) and len(last["densities"]) == STEPS - RESUMED
