"""One point of a sweep: a small vision transformer on the digits, with a recipe of some strength."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lazyneuron.core.errors import ConfigError
from lazyneuron.experiments.training.trainer import TrainingConfig, Variant, train
from lazyneuron.experiments.training.vision import vision_task
from lazyneuron.induce import DoublyBiased, Pressure, TargetDensity

# recipe -> what its strength is; None for none
STRENGTHS: dict[str, str | None] = {
    "vanilla": None,
    "jsrelu": None,
    "zeroth-bias": "bound",
    "norm-floor": "floor",
    "doubly-biased": "floor",
    "target": "density",
    "doubly-biased-target": "density",
}


def variant_of(recipe: str, strength: float | None) -> Variant:
    """What a recipe's name and strength stand for.

    Args:
        recipe: a key of :data:`STRENGTHS`.
        strength: the bound of the zeroth bias (0.1), the floor of the norm (1), or the density to hold by a penalty;
            None for the default.

    Raises:
        ConfigError: there is no such recipe, it has no strength, or needs one.
    """
    if recipe not in STRENGTHS:
        raise ConfigError(f"There is no recipe {recipe!r}; there are {', '.join(STRENGTHS)}.")
    kind = STRENGTHS[recipe]
    if (kind is None and strength is not None) or (kind == "density" and strength is None):
        raise ConfigError(f"The recipe {recipe!r} takes {'no strength' if kind is None else f'a {kind}'}.")
    parts: dict[str, Any] = {"jsrelu": False, "zeroth_bias": False, "norm_floor": None}
    if recipe in ("jsrelu", "zeroth-bias", "norm-floor"):
        parts[recipe.replace("-", "_")] = {"norm-floor": 1.0}.get(recipe, True)
    if recipe.startswith("doubly-biased"):
        parts = {}
    if strength is not None and kind in ("bound", "floor"):
        parts["bound" if kind == "bound" else "norm_floor"] = float(strength)
    pressure = Pressure(target=TargetDensity(density=float(strength or 0.1))) if kind == "density" else None
    changed = recipe not in ("vanilla", "target")
    return Variant(name=recipe, recipe=DoublyBiased(**parts) if changed else None, pressure=pressure)


def train_point(
    recipe: str = "vanilla",
    strength: float | None = None,
    *,
    seed: int = 0,
    epochs: int = 40,
    learning_rate: float = 5e-3,
    weight_decay: float = 0.0,
    noise: float = 0.0,
    smoothing: float = 0.0,
    data: str | None = None,
) -> dict[str, float]:
    """Train one model from scratch and measure it on held-out images.

    Args:
        recipe: a key of :data:`STRENGTHS`.
        strength: see :func:`variant_of`.
        seed: of weights and batches.
        epochs: passes over the training images.
        learning_rate: of AdamW, with a cosine to 0.
        weight_decay: likewise.
        noise: deviation of Gaussian noise on training images.
        smoothing: of the labels.
        data: CIFAR-10's binary folder; None takes scikit-learn's digits.

    Returns:
        ``density``, ``quality`` (accuracy), ``loss`` and ``train_density``.

    Raises:
        ConfigError: recipe and strength do not fit.
        DivergedError: the training diverged.
    """
    variant = variant_of(recipe, strength)
    task = vision_task(None if data is None else Path(data), noise=noise)
    config = TrainingConfig(
        steps=max(1, math.ceil(epochs * task.epoch_steps)),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        smoothing=smoothing,
        evaluations=1,
    )
    _, points = train(task, config, variant=variant, seed=seed)
    last = points[-1]
    return {
        "density": last.density,
        "quality": last.accuracy,
        "loss": last.loss,
        "train_density": last.train_density,
    }
