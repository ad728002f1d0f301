"""The controller drives a density to its target."""

import math

import pytest

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce import DensityController, TargetDensity


def drive(target: TargetDensity, *, respond, steps: int = 400, start: float = 0.5) -> tuple[float, DensityController]:
    """A plant whose density creeps towards ``respond(strength)``."""
    controller, density = DensityController(target), start
    for k in range(steps):
        strength = controller.update(density, progress=k / steps)
        density += 0.1 * (respond(strength) - density)
    return density, controller


@pytest.mark.parametrize("wanted", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
def test_reaches_the_target_from_any_first_strength(wanted, strength):
    density, _ = drive(TargetDensity(density=wanted, strength=strength, reach=0.4), respond=lambda s: 0.6 / (1 + s))
    assert density == pytest.approx(wanted, rel=0.1)


def test_goal_moves_geometrically_and_then_stays():
    controller = DensityController(TargetDensity(density=0.1, reach=0.5))
    assert controller.goal(0.0) == 0.1
    controller.update(0.4, progress=0.0)
    assert controller.goal(0.0) == pytest.approx(0.4)
    assert controller.goal(0.25) == pytest.approx(0.2)
    assert controller.goal(0.5) == pytest.approx(0.1)
    assert controller.goal(1.0) == pytest.approx(0.1)


def test_strength_moves_by_three_gains_at_most():
    controller = DensityController(TargetDensity(density=0.1, gain=0.02, smoothing=0.0))
    controller.update(0.5, progress=1.0)
    assert controller.strength == pytest.approx(math.exp(0.06))
    controller.update(0.0, progress=1.0)
    assert controller.strength == pytest.approx(1.0)


@pytest.mark.parametrize("density", [math.nan, -0.1, 1.1])
def test_a_density_is_a_fraction(density):
    with pytest.raises(DataError, match="fraction"):
        DensityController(TargetDensity(density=0.1)).update(density, progress=0.0)


@pytest.mark.parametrize(
    "bad", [{"density": 0.0}, {"density": 1.0}, {"density": 0.1, "reach": 0.0}, {"density": 0.1, "strength": 0.0}]
)
def test_bad_targets(bad):
    with pytest.raises(ConfigError):
        TargetDensity(**bad)
