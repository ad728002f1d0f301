"""The benchmark of memory: what is counted follows from the density, and the system counts less with packing."""

from __future__ import annotations

import sys

import pytest

from lazyneuron.experiments.bench import training_memory
from lazyneuron.experiments.experiment import Request
from tests.kernels import needs_kernels


@needs_kernels
@pytest.mark.parametrize("density", [0.03, 0.3])
def test_shares_are_bits_and_values(density):
    """In units of the input, four bytes a feature: of a hidden layer four times as wide stay a bit and what fires."""
    found = training_memory.shares((64, 256, 2048), density)
    hidden = 4 * (1 / 32 + density)
    near = {"abs": 0.04 * hidden}
    assert found["kept_share"] == pytest.approx(hidden / 4, **near)
    assert found["kept_share_with_input"] == pytest.approx((hidden + 1) / 5, **near)
    assert found["kept_share_in_layer"] == pytest.approx(hidden / 5, **near)


@needs_kernels
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_a_packed_training_needs_less():
    (row,) = training_memory.run(Request(quick=True)).data["rows"]
    assert 0 < row["packed_mib"] < row["dense_mib"]
