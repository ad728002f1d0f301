"""Feedback that finds the penalty's strength, so that one asks for a density and not for a coefficient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.core.ranks import gather_from_all


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetDensity:
    """A density to reach, and how.

    Attributes:
        density: mean density of the blocks to arrive at, in (0, 1).
        reach: share of the steps, in (0, 1], after which the goal itself is demanded; until then it moves from the
            density at the start to the target along a geometric line.
        strength: the penalty's coefficient at the first step; begin with a tenth or less of the default when training
            from scratch on a task that is learned slowly, as a strong start may silence a model for good.
        gain: how fast the coefficient answers; its logarithm moves by ``gain`` a step for every 5 % of density
            above or below the goal, by ``3 * gain`` at most.
        smoothing: weight of the past in the running mean of the observed density, in [0, 1).
    """

    density: float
    reach: float = 0.6
    strength: float = 1.0
    gain: float = 0.02
    smoothing: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.density < 1:
            raise ConfigError(f"A target density is a fraction between 0 and 1, got {self.density}.")
        if not 0 < self.reach <= 1:
            raise ConfigError(f"`reach` is a share of the steps in (0, 1], got {self.reach}.")
        if not (self.strength > 0 and self.gain >= 0 and 0 <= self.smoothing < 1):
            raise ConfigError(
                f"A controller takes strength > 0, gain >= 0 and smoothing in [0, 1), got {self.strength}, "
                f"{self.gain} and {self.smoothing}."
            )


class DensityController:
    """The coefficient of a penalty, step by step.

    Under ``torch.distributed`` each step's density is the mean of all processes', so that all use the same coefficient:
    every process calls :meth:`update` at every step.
    """

    def __init__(self, target: TargetDensity) -> None:
        self.target = target
        self.observed: float | None = None
        self._start = 0.0
        self._log_strength = math.log(target.strength)

    @property
    def strength(self) -> float:
        """The coefficient to use now."""
        return math.exp(self._log_strength)

    def goal(self, progress: float) -> float:
        """The density demanded when a share ``progress`` of the steps is done."""
        if self.observed is None:
            return self.target.density
        way = min(1.0, progress / self.target.reach)
        return float(self._start * (self.target.density / self._start) ** way)

    def update(self, density: float, *, progress: float) -> float:
        """Take note of the density just seen and move the coefficient.

        Args:
            density: share of hidden activations that were not zero in this step.
            progress: share of the steps done so far, in [0, 1].

        Returns:
            The coefficient to use for this step's penalty.

        Raises:
            DataError: the density is not a fraction, as when a model has diverged.
        """
        if not 0 <= density <= 1:
            raise DataError(f"A density is a fraction between 0 and 1, got {density}; check the model for NaN.")
        seen = gather_from_all(density)
        density = max(sum(seen) / len(seen), 1e-6)
        if self.observed is None:
            self.observed = self._start = density
        past = self.target.smoothing
        self.observed = past * self.observed + (1 - past) * density
        error = math.log(self.observed / self.goal(progress)) / 0.05
        self._log_strength += self.target.gain * max(-3.0, min(3.0, error))
        return self.strength

    def state_dict(self) -> dict[str, float | None]:
        """What has to be kept to go on later, exactly."""
        return {"observed": self.observed, "start": self._start, "log_strength": self._log_strength}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Take up what :meth:`state_dict` gave."""
        observed, start, log_strength = state["observed"], state["start"], state["log_strength"]
        assert start is not None and log_strength is not None
        self.observed, self._start, self._log_strength = observed, start, log_strength
