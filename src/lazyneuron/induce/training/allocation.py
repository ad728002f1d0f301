"""How dense each block is to be: what each density costs in output error, and what it saves in bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce.training.samples import BlockSamples

LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.17, 0.14, 0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02)
_MOST_ROWS = 1024
_SLACK = 1e-3  # of a density: scores come in steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A threshold tried on a block's samples.

    Attributes:
        threshold: what a neuron's score has to exceed to fire.
        density: share of neurons that then fire.
        error: squared change of the block's output over its variance.
    """

    threshold: float
    density: float
    error: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """What thresholds do to one block.

    Attributes:
        points: from the densest (threshold 0, error 0) to the sparsest, no two of one density.
        weights: numbers that a token reads of this block when everything fires.
    """

    points: tuple[Point, ...]
    weights: int

    def first(self, *, density: float | None, error: float | None) -> Point:
        """The densest point at most so dense, or the sparsest with at most this error; the latter rules."""
        fitting = [p for p in self.points if error is None or p.error <= error]
        if density is None:
            return fitting[-1]
        return next((p for p in fitting if p.density <= density + _SLACK), fitting[-1])


def neuron_weights(block: MLPBlock, samples: BlockSamples) -> Tensor:
    """What one unit of ``s`` at each neuron is worth in the output: its column of ``down``, times its factor.

    Args:
        block: the block; in a gated one the root mean square of ``up`` on the samples enters.
        samples: its inputs.

    Returns:
        (d_hidden,).
    """
    worth: Tensor = torch.linalg.vector_norm(block.down.effective_weight.detach().float(), dim=0)
    u = block.factor(_rows(samples.inputs))
    if u is not None:
        worth = worth * u.detach().float().square().mean(0).sqrt()
    return worth


@torch.no_grad()
def curve(block: MLPBlock, samples: BlockSamples, *, worth: Tensor | None, levels: Sequence[float] = LEVELS) -> Curve:
    """Try thresholds on a block, each time as if the other blocks were untouched.

    Args:
        block: a block.
        samples: what it was given; at most 1024 tokens are looked at.
        worth: from :func:`neuron_weights`, to weigh neurons by; None takes the magnitude of ``s`` alone.
        levels: densities to try, falling.

    Returns:
        The curve.

    Raises:
        DataError: the samples or the outputs are not finite.

    Cost: ``up`` once and ``down`` once a level, at the samples.
    """
    x = _rows(samples.inputs)
    z = block.pre_activation(x)
    h, value = block.hidden(x, z), block.activation(z)
    score = value.float().abs() if worth is None else value.float().abs() * worth
    wanted = _output(block, h)
    scale = float((wanted - wanted.mean(0)).double().square().sum())
    if not (torch.isfinite(score).all() and 0 < scale < float("inf")):
        raise DataError(f"The outputs of {block.name} are constant or not finite; pass other batches.")
    points = [Point(threshold=0.0, density=float((score > 0).float().mean()), error=0.0)]
    flat = score.flatten()
    for level in sorted(set(levels), reverse=True):
        cut = float(flat.kthvalue(max(1, flat.numel() - round(level * flat.numel()))).values)
        fires = score > cut
        density = float(fires.float().mean())
        if density < points[-1].density:
            change = _output(block, h * fires) - wanted
            points.append(Point(threshold=cut, density=density, error=float(change.double().square().sum()) / scale))
    weights = sum(site.weight.numel() for site in block.linears)
    return Curve(points=tuple(points), weights=weights)


def uniform(curves: Mapping[str, Curve], *, density: float | None, error: float | None) -> dict[str, Point]:
    """The same density, or the same error at most, for every block."""
    return {name: c.first(density=density, error=error) for name, c in curves.items()}


def by_error_per_byte(curves: Mapping[str, Curve], *, density: float | None, error: float | None) -> dict[str, Point]:
    """Go from point to point where the error grows least for what is saved, until the goal is met.

    Args:
        curves: of all blocks.
        density: goal of the blocks' mean density, weighted by what they read.
        error: budget of the mean error of the blocks; the last step that fits is taken.

    Returns:
        A point for each block.
    """
    at = dict.fromkeys(curves, 0)
    open_ = dict(curves)

    def mean_error() -> float:
        return sum(c.points[at[n]].error for n, c in curves.items()) / len(curves)

    while density is None or mean_density({n: c.points[at[n]] for n, c in curves.items()}, curves) > density + _SLACK:
        steps = [(_rate(c, at[n], j), n) for n, c in open_.items() for j in range(at[n] + 1, len(c.points))]
        if not steps:
            break
        name = min(steps)[1]
        at[name] += 1
        if error is not None and mean_error() > error:
            at[name] -= 1
            del open_[name]
    return {name: c.points[at[name]] for name, c in curves.items()}


def mean_density(chosen: Mapping[str, Point], curves: Mapping[str, Curve]) -> float:
    """Mean density of the blocks, weighted by the numbers that each reads."""
    return sum(c.weights * chosen[n].density for n, c in curves.items()) / sum(c.weights for c in curves.values())


def check_met(
    chosen: Mapping[str, Point], curves: Mapping[str, Curve], *, density: float | None, error: float | None
) -> None:
    """Refuse an allocation that misses its goal.

    Raises:
        ConfigError: the density is out of reach, or within reach only with a larger error.
    """
    reached = mean_density(chosen, curves)
    if density is not None and reached > density + _SLACK:
        within = "" if error is None else f" within the error {error:g}"
        raise ConfigError(
            f"The density {density:g} cannot be met{within}: {reached:.3f} is the least that was reached; "
            "ask for a larger density" + ("." if error is None else " or allow a larger error.")
        )


def _rate(c: Curve, start: int, goal: int) -> float:
    a, b = c.points[start], c.points[goal]
    return (b.error - a.error) / ((a.density - b.density) * c.weights)


def _rows(x: Tensor) -> Tensor:
    return x[:: max(1, -(-len(x) // _MOST_ROWS))]


def _output(block: MLPBlock, h: Tensor) -> Tensor:
    return torch.nn.functional.linear(h, block.down.effective_weight).float()
