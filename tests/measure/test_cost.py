import json

import pytest
import torch

from lazyneuron.core.record import Record
from lazyneuron.measure import measure, traffic
from tests.measure.networks import Gated, Plain, block_of


def test_one_token_bytes_follow_the_formula():
    d, h, w, a = 8, 32, 4, 0.25
    found = traffic(d, h, d_out=d, itemsize=w, gated=False, density=a)
    assert found.dense_bytes == 2 * d * h * w
    assert found.certified_bytes_at_least == d * h * (1 + w * (a + a))
    assert found.dense_flops == 4 * d * h
    assert found.certified_flops_at_least == 4 * d * h * a
    assert found.speedup_ceiling_from_bytes == pytest.approx(8 / 3)


def test_gated_block_reads_three_matrices_dense_and_two_rows_a_firing_neuron():
    d, h, w, a = 8, 32, 2, 0.5
    found = traffic(d, h, d_out=d, itemsize=w, gated=True, density=a)
    assert found.dense_bytes == 3 * d * h * w
    assert found.certified_bytes_at_least == d * h * (1 + w * (a + 2 * a))
    assert found.dense_flops == 6 * d * h


def test_bytes_follow_the_union_and_flops_the_density():
    found = traffic(4, 8, d_out=4, itemsize=4, gated=False, density=0.1, union_density=0.5, tokens=16)
    assert found.certified_bytes_at_least == 32 + 0.5 * 64 * 4
    assert found.certified_flops_at_least == pytest.approx(16 * 0.1 * 128)
    assert found.sketch_int_ops == 16 * 64


def test_full_density_allows_no_gain():
    full = traffic(4, 8, d_out=4, itemsize=4, gated=False, density=1.0)
    assert full.certified_bytes_at_least > full.dense_bytes
    assert full.speedup_ceiling_from_bytes == 1


def test_report_is_a_record_and_a_table():
    torch.manual_seed(0)
    model = Gated(kind="relu")
    report = measure(model, [torch.randn(3, 20, 6)], blocks=[block_of(model, "layers.0")])
    record = report.to_record(settings={"model": "tiny"}, firing_counts=True)
    again = Record.from_json(record.to_json())
    assert again.kind == "measure"
    (data,) = again.data["blocks"]
    (block,) = report.blocks
    assert data["firing_counts"] == block.firing_counts.tolist()
    assert sum(data["rate_histogram"]) == 16
    assert data["density"] == report.density
    assert [u["tokens"] for u in data["unions"]] == [1, 2, 4, 8, 16, 64, 256]
    assert data["unions"][-1]["density"] is None
    assert data["traffic"][0]["speedup_ceiling_from_bytes"] > 1
    assert again.data["settings"] == {"model": "tiny"}
    text = str(report)
    assert "layers.0" in text
    assert f"{report.density:.4f}" in text
    assert "%" not in text


def test_record_without_counts_is_small_and_standard_json():
    model = Plain()
    report = measure(model, [torch.randn(4, 6)], blocks=[block_of(model)])
    text = report.to_record().to_json()
    assert "firing_counts" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
