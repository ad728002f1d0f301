"""Ticks of logarithmic axes as plain numbers."""

import pytest

from lazyneuron.report.style import drawing
from lazyneuron.report.ticks import plain_ticks


def labels(values):
    with drawing(4.0, 3.0) as figure:
        axes = figure.add_subplot(xscale="log")
        axes.plot(values, [1.0] * len(values))
        plain_ticks(axes.xaxis, values)
        figure.canvas.draw()
        low, high = axes.get_xlim()
        ticks = zip(axes.xaxis.get_ticklocs(), axes.get_xticklabels(), strict=True)
        return [label.get_text() for at, label in ticks if low <= at <= high]


@pytest.mark.parametrize(
    "values, wanted",
    [
        ([1.3, 8.5], ["1", "2", "5", "10"]),
        ([0.05, 1.0], ["0.05", "0.1", "0.2", "0.5", "1"]),
        ([33.06, 34.5], ["33", "33.3", "33.6", "33.9", "34.2", "34.5"]),
    ],
)
def test_numbers_within_the_axis_are_plain(values, wanted):
    found = labels(values)
    assert set(found) <= set(wanted) and len(found) >= len(wanted) - 1


def test_many_decades_keep_their_powers():
    assert all("10^" in label for label in labels([1e-5, 1.0]))
