"""Blocks that torch's tensor parallelism has spread over processes answer as one process with all neurons does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.house.rooms import ROOT
from tests.kernels import needs_kernels

pytestmark = [
    needs_kernels,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
]


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def found(request, tmp_path_factory):
    """What each of so many processes saw."""
    path = tmp_path_factory.mktemp("sharded") / "found.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(request.param)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command += ["-m", "tests.accelerate.sharded_execution", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000] + done.stderr[-2000:]
    return json.loads(path.read_text())


def test_outputs_are_those_of_one_process(found):
    limits = {"torch.float32": 2e-6, "torch.bfloat16": 2e-2, "torch.float16": 2e-3}
    for seen in found:
        assert len(seen["outputs"]) == 6
        for name, off in seen["outputs"].items():
            assert off < limits[name.split()[0]], name


def test_every_process_skips_and_shares_the_neurons(found):
    for layer, fired in enumerate(found[0]["density"][0]):
        blocks = [seen["counted"][layer] for seen in found]
        assert [block[:2] for block in blocks] == [[2, 2]] * len(found)
        assert max(block[2] for block in blocks) < 0.1
        mean = sum(block[3] for block in blocks) / len(blocks)
        assert mean == pytest.approx(fired, rel=0.1)  # the shares saw one token more, which is the first again


def test_density_is_that_of_all_neurons(found):
    for seen in found:
        plain, sharded = seen["density"]
        assert plain == sharded and all(0.01 < d < 0.1 for d in plain)


def test_restored_bit_for_bit(found):
    for seen in found:
        same, off = seen["restored"]
        assert same and off < 2e-6


def test_changed_weights_are_followed(found):
    for seen in found:
        *off, last = seen["followed"]
        assert len(off) == 3 and max(off) < 2e-6
        assert last == "weights that are not those of the acceleration"


def test_training_and_gradients_take_the_original_path(found):
    for seen in found:
        gradients, sparse, training, in_training = seen["differentiated"]
        assert gradients < 1e-5 and training < 2e-6
        assert sparse == in_training == 0


def test_a_copy_has_its_own_weights(found):
    for seen in found:
        assert max(seen["copied"]) < 2e-6


def test_what_cannot_be_shared_is_refused_by_all(found):
    for seen in found:
        sequence, backwards, broken, late = seen["refused"]
        assert "takes or gives parts of tokens" in sequence
        assert "0.mlp.up is not sharded as tensor parallelism shards it" in backwards
        assert "The weights of 0.mlp.down hold NaN or infinity" in broken
        assert "find the blocks before the model is sharded" in late
