"""The benchmark of GPUs, as small as can be, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import pytest
import torch

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.experiments.bench import gpu
from lazyneuron.experiments.experiment import Request
from tests.gpu import needs_triton, quiet

pytestmark = [needs_triton, quiet]


def test_a_quick_record_has_every_row(monkeypatch):
    shapes, counts, densities = gpu._QUICK
    record = gpu.run(Request(quick=True))
    rows = record.data["rows"]
    assert [(row["tokens"], row["density"]) for row in rows] == [(n, d) for d in densities for n in counts]
    for row in rows:
        union = 1 - (1 - row["density"]) ** row["tokens"]
        assert abs(row["union_density"] - union) < 0.15 and row["error"] < 0.02
        d_in, d_hidden = next(iter(shapes.values()))
        bytes_read = 2 * d_in * d_hidden * (1 + 2 * row["union_density"])
        assert row["limit_us"] == pytest.approx(bytes_read / record.data["copy_gbps"] / 1e3, rel=0.3, abs=0.006)
        assert row["ratio"] > 0 and row["ours_us"] > 0
    text = gpu._section(record)
    assert "small, 64 x 96" in text and "times dense's speed" in text


def test_a_machine_without_a_gpu_is_told_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ImplUnavailable, match="needs a CUDA device"):
        gpu.run(Request())
