"""The Gaussian top-k of Gemma 3n: a token's neurons are cut at their mean plus a multiple of their deviation."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.core.errors import ShapeError

#: By the end of the kind's name, what comes after the cut; each is 0 at 0 and rises from there.
AFTER: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda y: y,
    "_gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "_gelu": F.gelu,
    "_silu": F.silu,
}
_DECIMALS = range(1, 7)  # of a density, as a config would state it
_Q_ERR = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2}


def gaussian_top_k(after: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float], Tensor]:
    """``after(relu(z - (mean + q std)))`` over each token's neurons, ``q`` the normal quantile of ``1 - density``.

    In the dtype of ``z`` throughout, as the models do it. Source: Gemma 3n's modelling code in transformers (2025).
    """

    def value(z: Tensor, density: float) -> Tensor:
        if z.shape[-1] < 2:
            raise ShapeError("A Gaussian top-k needs at least 2 neurons to tell their deviation, got 1; use another.")
        q = torch.tensor(_quantile(density), dtype=torch.float32, device=z.device).to(z.dtype)
        cutoff = z.mean(-1, keepdim=True) + z.std(-1, keepdim=True, unbiased=False) * q
        return after(F.relu(z - cutoff))

    return value


def fitted_gaussian_top_k(z: Tensor, value: Tensor) -> Iterator[tuple[str, float]]:
    """The ends of kinds' names and densities whose values at ``z`` could be these; (tokens, neurons) both.

    Each token's cutoff is told from its largest neuron, and has to lie as many deviations above the mean as those of
    the other tokens. Whoever asks compares the values themselves.
    """
    mixed = _cut_in_order(z, value)
    if mixed is None:
        return
    allowed = _Q_ERR.get(z.dtype, 5e-2)
    z, value = z[mixed].double(), value[mixed].double()
    top, at = z.max(-1)
    reached = value.gather(-1, at[:, None])[:, 0]
    for name, after in AFTER.items():
        cutoff = top - _preimage(after, reached)
        q = (cutoff - z.mean(-1)) / z.std(-1, unbiased=False)
        if bool((q - q.median()).abs().max() <= 4 * allowed):
            yield name, _density(float(q.median()), allowed)


def _cut_in_order(z: Tensor, value: Tensor) -> Tensor | None:
    """Which tokens have neurons on both sides of a cut; None if in one of them a smaller pre-activation fires."""
    if z.ndim != 2 or z.shape != value.shape or z.shape[1] < 2 or not bool(value.isfinite().all()):
        return None
    fires = value != 0
    mixed = fires.any(1) & ~fires.all(1)
    lowest = torch.where(fires, z.double(), torch.inf).amin(1)
    highest = torch.where(fires, -torch.inf, z.double()).amax(1)
    return mixed if int(mixed.sum()) >= 2 and bool((lowest >= highest)[mixed].all()) else None


def _preimage(after: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Where a rising function of numbers >= 0 has these values, by halving; NaN where it has them nowhere."""
    low, high = torch.zeros_like(values), 2 * values.clamp_min(0) + 2
    for _ in range(60):
        middle = (low + high) / 2
        below = after(middle) < values
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(values > 0, (low + high) / 2, torch.nan)


def _density(q: float, allowed: float) -> float:
    """The density of this quantile, to as few decimals as it allows."""
    exact = 1 - statistics.NormalDist().cdf(q)
    for decimals in _DECIMALS:
        short = round(exact, decimals)
        if 0 < short < 1 and abs(_quantile(short) - q) <= allowed:
            return short
    return exact


def _quantile(density: float) -> float:
    return statistics.NormalDist().inv_cdf(1 - density)
