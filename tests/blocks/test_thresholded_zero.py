"""Where thresholded smooth functions are zero in every evaluation: against torch's own, float by float."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.thresholded import RELATIVE, TINY
from tests.accelerate.fuzz.bounds import gelu, gelu_tanh

KINDS = ("thresholded_silu", "thresholded_gelu", "thresholded_gelu_tanh")
THRESHOLDS = (0.2, 0.17, 0.169, 0.1, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-12, 2e-16, 1e-17, 1e-30)


def neighbours(end: float, direction: float, count: int = 4096) -> Tensor:
    """The floats from an end on, as far as a thousandth of it, in the direction that leads inwards."""
    near = torch.full((count,), end)
    step = torch.arange(count) * direction
    ulps = torch.nextafter(near, torch.tensor(direction * math.inf)) - near
    return torch.cat([near + step * ulps.abs(), near + step * abs(end) * 1e-3 / count])


@pytest.mark.parametrize("t", THRESHOLDS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_float_within_the_ends_fires(kind: str, t: float) -> None:
    act = Activation(kind, (t,))
    zero = act.zero
    ends = zip(dataclasses.astuple(zero), (-1.0, 1.0, -1.0), strict=True)
    z = torch.cat([neighbours(end, direction) for end, direction in ends if math.isfinite(end)])
    z = torch.cat([z, -torch.logspace(-44, 38, 4000)])
    z = z[zero.contains(z.double())]
    assert len(z) > 4000
    assert not bool(act(z).any()) and not bool(act(z.repeat_interleave(2)[::2]).any())


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_where_the_function_is_the_threshold(kind: str) -> None:
    smooth = {"thresholded_silu": F.silu, "thresholded_gelu": F.gelu}.get(kind, lambda z: F.gelu(z, approximate="tanh"))
    for t in (0.5, 0.1, 1e-3):
        ends = torch.tensor([e for e in dataclasses.astuple(Activation(kind, (t,)).zero) if math.isfinite(e)])
        assert len(ends) == (1 if t == 0.5 else 3)
        value = smooth(ends.double()).abs()
        assert bool((value <= t).all()) and bool((value >= t * (1 - 0.02)).all())


def test_the_left_piece_of_a_tiny_threshold_is_far_to_the_left() -> None:
    for t in (1e-15, 1e-17, 1e-30):
        left = Activation("thresholded_silu", (t,)).zero.left
        assert left < -30 and abs(left / (1 + math.exp(-left))) <= t
    assert Activation("thresholded_silu", (1e-44,)).zero.empty


@pytest.mark.parametrize("step", [20011, pytest.param(101, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("torchs", "exact", "noise", "quiet"),
    [
        (F.silu, lambda z: z / (1 + torch.exp(-z)), 0.0, 0.0),
        (F.gelu, gelu, 2.0**-20, -8.0),
        (lambda z: F.gelu(z, approximate="tanh"), gelu_tanh, 2.0**-20, -8.0),
    ],
    ids=["silu", "gelu", "gelu_tanh"],
)
def test_torch_errs_by_no_more_than_the_ends_allow_for(
    torchs: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor], noise: float, quiet: float, step: int
) -> None:
    """Every step-th float up to a quarter of float32's range, of both signs."""
    for sign in (0, -(2**31)):
        z = (torch.arange(0, 0x7E800000, step, dtype=torch.int32) + sign).view(torch.float32)
        wide = z.double()
        wanted = exact(wide)
        limit = RELATIVE * wanted.abs() + TINY + torch.where(wide > quiet, noise * wide.abs(), 0.0)
        for value in (torchs(z), torchs(z.repeat_interleave(2)[::2])):
            assert bool(((value.double() - wanted).abs() <= limit + wanted.abs() * (wide <= quiet)).all())
