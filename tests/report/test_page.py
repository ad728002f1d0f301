import dataclasses
import html.parser
import re

import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.report import demo_page, sparsity_page
from tests.report.records import demo_data, demo_record, sparsity_block, sparsity_record

VOID = {"meta", "link"}


class Balance(html.parser.HTMLParser):
    """Checks that every element is closed in order, and collects text and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def visible(page):
    return " ".join(" ".join(parsed(re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)).text).split())


def test_demo_page_shows_the_record():
    page = demo_page(demo_record())
    text = visible(page)
    for shown in (
        "encoder.layer.3",
        "1 → 0.066",
        "0.973",
        "0.771",
        "0.951",
        "2000",
        "4.77e-7",
        "8.10 ms",
        "1.43x",
        "2.63x",
    ):
        assert shown in text, shown
    assert "0.090" in text  # mean of the six densities after
    assert "MLP blocks take 0.34" in text
    assert "commit 0123456789ab" in text
    assert "Example Processor 9000" in text
    assert "%" not in text


def test_bars_have_the_widths_of_their_figures():
    page = demo_page(demo_record())
    assert 'style="width:12.10%" title="after 0.121"' in page
    assert 'style="left:18.20%" title="the original under ReLU 0.182"' in page
    slowest = 1.05 * 1.09
    assert f"width:{100 * 0.7 / slowest:.2f}%" in page
    assert f'class="limit" style="left:{100 * 0.66 / slowest:.2f}%"' in page


@pytest.mark.parametrize("page", [demo_page(demo_record()), sparsity_page(sparsity_record())], ids=["demo", "sparsity"])
def test_pages_need_nothing_from_outside(page):
    parser = parsed(page)
    assert "<script" not in page
    for name, value in parser.attributes:
        if name in {"src", "href"}:
            assert value.startswith(("data:", "#"))
    assert "url(" not in page
    assert "@import" not in page
    assert "&gt;" not in re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]


def test_names_are_escaped():
    data = demo_data()
    data["blocks"][0]["name"] = "<script>alert(1)</script>"
    assert "<script" not in demo_page(demo_record(blocks=data["blocks"]))


def test_missing_optional_figures_leave_gaps_not_errors():
    data = demo_data()
    for block in data["blocks"]:
        block["computed_share"] = None
    case = data["latency"][0] | {"ceiling": None, "mlp_share": None}
    case["rows"][2] = {"variant": "relu compiled", "median_ms": None, "note": "no C++ compiler"}
    page = demo_page(demo_record(blocks=data["blocks"], latency=[case], frontier=[], timing_s={}, settings={}))
    assert "no C++ compiler" in visible(page)
    assert "could not be proved" not in page
    assert 'class="limit"' not in page
    assert "<svg" not in page


def test_frontier_is_numbered_and_leaves_out_what_would_hide_the_rest():
    page = demo_page(demo_record())
    assert page.count('<g class="dot">') == 2 * 4
    assert page.count('style="fill:var(--fire)') == 2
    assert page.count("<title>distilled: density 0.090, 0.973</title>") == 1
    assert page.count("Off the chart, far below: 1.") == 2
    text = visible(page)
    assert "1 ReLU, untrained 0.093 0.410 0.120" in text
    assert "5 distilled 0.090 0.973 0.771" in text


def test_ceilings_stand_beside_the_speedups():
    text = visible(demo_page(demo_record()))
    assert "1.43x of at most 1.52x" in text
    assert "Against the same sparse model run densely: 1.39x, of at most 1.46x that its density here allows." in text
    assert "no oneDNN" in text


def test_a_perfect_ceiling_draws_no_line():
    data = demo_data()
    case = data["latency"][0] | {"ceiling": float("inf")}
    assert 'class="limit"' not in demo_page(demo_record(latency=[case]))


@pytest.mark.parametrize("page", [demo_page, sparsity_page])
def test_another_kind_of_record_is_refused(page):
    with pytest.raises(DataError, match="kind 'benchmark/accelerate'"):
        page(Record(kind="benchmark/accelerate", data={}, seed=None, environment=demo_record().environment))


@pytest.mark.parametrize("missing", ["blocks", "quality", "latency", "max_abs_difference"])
def test_a_missing_figure_is_named(missing):
    data = demo_data()
    del data[missing]
    with pytest.raises(DataError, match=f"no figure '{missing}'"):
        demo_page(dataclasses.replace(demo_record(), data=data))


def test_a_figure_of_the_wrong_type_is_one_sentence():
    with pytest.raises(DataError, match="cannot be shown"):
        demo_page(demo_record(blocks=3))


def test_sparsity_page_shows_the_record():
    blocks = [
        sparsity_block(0),
        sparsity_block(
            1, notes=["It did not run."], tokens=0, density=None, density_if_relu=None, overlap=None, traffic=[]
        ),
    ]
    page = sparsity_page(sparsity_record(blocks=blocks, threshold=0.01))
    text = visible(page)
    assert "at most 0.0100 in magnitude" in text
    assert "encoder.layer.1: It did not run." in text
    assert "0.050" in text
    assert page.count('<g class="path">') == 1
    assert text.count("5.00x") == 1


def test_sparsity_page_from_a_measurement():
    import torch
    from torch import nn

    from lazyneuron.measure import measure
    from tests.measure.networks import Plain, block_of

    model = nn.Sequential(Plain()).eval()
    report = measure(model, [torch.randn(2, 40, 6)], blocks=[block_of(model[0], "0")])
    text = visible(sparsity_page(Record.from_json(report.to_record(settings={"data": "noise"}).to_json())))
    assert "1 MLP block, observed on up to 80 tokens in 1 batch in evaluation mode" in text
    assert f"{report.density:.3f}" in text
    assert "noise" in text
