import struct
import sys

import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.report import curves_figure, density_figure, latency_figure
from tests.report.records import demo_data, demo_record


def size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


def test_density_figure_grows_with_the_blocks(tmp_path):
    density_figure(demo_record(), tmp_path / "six.png")
    density_figure(demo_record(blocks=demo_data()["blocks"] * 2), tmp_path / "twelve.png")
    six, twelve = size(tmp_path / "six.png"), size(tmp_path / "twelve.png")
    assert six[0] == twelve[0] > 1000
    assert twelve[1] > six[1] + 200


def test_latency_figure_has_a_panel_a_case(tmp_path):
    case = demo_data()["latency"][0]
    case["rows"][1] = {"variant": "relu dense", "median_ms": None}
    latency_figure(demo_record(latency=[case]), tmp_path / "one.png")
    latency_figure(demo_record(), tmp_path / "three.png")
    one, three = size(tmp_path / "one.png"), size(tmp_path / "three.png")
    assert three[1] > one[1] + 500 and one[0] == three[0]


def test_figures_leave_pyplot_alone(tmp_path):
    density_figure(demo_record(), tmp_path / "a.png")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Cannot write"):
        density_figure(demo_record(), tmp_path / "file" / "a.png")


def test_many_curves_are_named_below_the_axes(tmp_path):
    def drawn(count, label):
        curves = [{"label": f"{label} {k}", "x": [0, 1], "y": [k, k]} for k in range(count)]
        data = {"axes": ["x", "y"], "curves": curves}
        curves_figure(Record(kind="reproduce", data=data, seed=0), tmp_path / "figure.png")
        return size(tmp_path / "figure.png")

    few, many, long = drawn(6, "a"), drawn(8, "a"), drawn(8, "a" * 50)
    assert few[0] == many[0] == long[0]
    assert many[1] - few[1] >= 4 * 20 and long[1] - few[1] >= 8 * 20  # pixels for two columns, and for one
