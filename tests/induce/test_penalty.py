"""Penalties against numbers worked by hand and against their definitions in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.induce import firing_penalty, hoyer_penalty, l1_penalty, log_penalty

H = torch.tensor([[[3.0, 0.0, 4.0, 0.0], [9.0, 9.0, 9.0, 9.0]], [[0.0, -2.0, 0.0, 0.0], [7.0, 7.0, 7.0, 7.0]]])
MASK = torch.tensor([[1, 0], [1, 0]])


def test_l1_by_hand():
    assert l1_penalty(H, mask=MASK).item() == pytest.approx((3 + 4 + 2) / 8)
    assert l1_penalty(H, mask=MASK, weight=torch.tensor([2.0, 10.0, 0.5, 1.0])).item() == pytest.approx(28 / 8)
    assert l1_penalty(H[:, 1]).item() == pytest.approx(8.0)


def test_hoyer_by_hand():
    # (3 + 4)^2 / (9 + 16) / 4 and 2^2 / 4 / 4
    assert hoyer_penalty(H, mask=MASK).item() == pytest.approx((49 / 100 + 1 / 4) / 2)
    assert hoyer_penalty(H[:, 1]).item() == pytest.approx(1.0)
    assert hoyer_penalty(torch.zeros(3, 5)).item() == 0.0


def test_log_by_hand():
    assert log_penalty(H, scale=2.0, mask=MASK).item() == pytest.approx(
        (math.log(2.5) + math.log(3.0) + math.log(2.0)) / 8
    )


def test_firing_by_hand():
    z = torch.tensor([[0.0, math.log(3.0)]])
    assert firing_penalty(z, scale=1.0).item() == pytest.approx((0.5 + 0.75) / 2)
    assert firing_penalty(z + 5, scale=1.0, end=5.0).item() == pytest.approx((0.5 + 0.75) / 2)


def test_firing_tends_to_the_density():
    z = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    density = (z > 0.3).float().mean().item()
    assert firing_penalty(z, scale=1e-4, end=0.3).item() == pytest.approx(density, abs=2e-3)


@given(st.floats(0.01, 100.0), st.integers(0, 2**16))
def test_hoyer_is_free_of_scale_and_within_its_range(factor, seed):
    h = torch.relu(torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)).double())
    value = hoyer_penalty(h)
    assert torch.allclose(value, hoyer_penalty(factor * h))
    assert 0 <= value <= 1


@pytest.mark.parametrize("penalty", [l1_penalty, hoyer_penalty, lambda h, mask: log_penalty(h, scale=0.5, mask=mask)])
def test_padding_gets_no_gradient_and_changes_nothing(penalty):
    h = H.clone().requires_grad_()
    penalty(h, mask=MASK).backward()
    assert (h.grad[:, 1] == 0).all()
    assert (h.grad[:, 0] != 0).any()
    other = H.clone()
    other[:, 1] = torch.nan
    assert penalty(other, mask=MASK).item() == penalty(H, mask=MASK).item()


@pytest.mark.parametrize("penalty", [l1_penalty, hoyer_penalty])
def test_errors(penalty):
    with pytest.raises(ShapeError, match=r"\(2, 3\).*does not fit"):
        penalty(H, mask=torch.ones(2, 3))
    with pytest.raises(DataError, match="no real token"):
        penalty(H, mask=torch.zeros(2, 2))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_is_positive(scale):
    with pytest.raises(ConfigError, match="number > 0"):
        log_penalty(H, scale=scale)
    with pytest.raises(ConfigError, match="number > 0"):
        firing_penalty(H, scale=scale)
