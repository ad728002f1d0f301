"""GELU less a number above a threshold, zero below it."""

import math

import pytest
import torch

from lazyneuron.blocks.activation import Activation
from lazyneuron.core.errors import ConfigError


def by_hand(z: float, t: float, c: float) -> float:
    return 0.0 if z <= t else 0.5 * z * (1 + math.erf(z / math.sqrt(2))) - c


@pytest.mark.parametrize(("t", "c"), [(-0.3, -0.1), (0.5, 0.2), (0.0, 0.0)])
def test_its_value_its_slope_and_where_it_is_zero(t: float, c: float) -> None:
    activation = Activation("offset_gelu", (t, c))
    z = torch.tensor([-9.0, -1.0, t, math.nextafter(t, 9.0), t + 0.1, 1.0, 8.0], dtype=torch.float64)
    assert activation(z).tolist() == pytest.approx([by_hand(v, t, c) for v in z.tolist()], abs=1e-15)
    assert (activation.zero.left, activation.zero.empty) == (t, False)
    assert activation.zero.contains(z).tolist() == [v <= t for v in z.tolist()]
    step = 1e-6
    slopes = [(by_hand(v + step, t, c) - by_hand(v - step, t, c)) / (2 * step) for v in (-1.0, t + 0.1, 1.0)]
    assert activation.derivative(torch.tensor([-1.0, t + 0.1, 1.0])).tolist() == pytest.approx(slopes, abs=1e-5)
    assert math.isnan(float(activation(torch.tensor(math.nan))))


def test_of_16_bit_numbers_the_threshold_is_rounded_as_torch_rounds_it() -> None:
    wide = Activation("offset_gelu", (-0.3, -0.2))  # GELU is -0.17 at least, so that nothing else is zero
    limit, offset = wide.compared(torch.bfloat16).parameters
    assert (limit, offset) == tuple(torch.tensor([-0.3, -0.2]).bfloat16().tolist()) != (-0.3, -0.2)
    z = torch.arange(-2, 2, 1 / 256).bfloat16()
    assert torch.equal(wide(z) == 0, z.double() <= limit)
    exact = torch.nn.functional.gelu(z).double() - offset
    assert torch.equal(wide(z)[z > limit], exact[z > limit].bfloat16())


@pytest.mark.parametrize("parameters", [(math.inf, 0.0), (0.0, math.nan)])
def test_numbers_that_are_not_finite_are_refused(parameters: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="finite"):
        Activation("offset_gelu", parameters)
