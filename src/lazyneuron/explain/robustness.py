"""How much a small change of the hidden features, or of the input, can raise the loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import blocks_of
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.explain.losses import Loss, samples_in, summed_loss
from lazyneuron.explain.perturbed import EMBEDDINGS, Perturbed, input_of

Quality = Callable[[Any, Any], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """A bounded change that raises the loss as much as gradients can tell.

    One step is the fast gradient (sign) method, several are projected gradient ascent.

    Attributes:
        eps: the bound, a number >= 0 in the units of what is changed.
        norm: ``"linf"`` bounds every coordinate; ``"l2"`` bounds the length of every token's vector, and of a whole
            sample where the model's own input is changed.
        steps: gradients taken, at least 1.
        step_size: length of a step, in the units of ``eps``; None takes ``eps`` for one step, else ``2.5 eps / steps``.
        relative: measure ``eps`` in root mean squares of the vector that is changed.

    Source: Goodfellow et al. (2015) and Madry et al. (2018).
    """

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 1
    step_size: float | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.eps, str) or not (math.isfinite(self.eps) and self.eps >= 0):
            raise ConfigError(f"`eps` is a finite number >= 0, such as 1 / 255, got {self.eps!r}.")
        if self.norm not in ("linf", "l2"):
            raise ConfigError(f"`norm` is 'linf' or 'l2', got {self.norm!r}.")
        if self.steps < 1 or not (self.step_size is None or self.step_size > 0):
            raise ConfigError(f"An attack takes >= 1 steps of size > 0, got {self.steps} and {self.step_size}.")

    @property
    def share(self) -> float:
        """Length of one step as a share of ``eps``."""
        if self.step_size is not None and self.eps > 0:
            return self.step_size / self.eps
        return 1.0 if self.steps == 1 else 2.5 / self.steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness:
    """What an attack on one place achieved.

    Attributes:
        place: name of the block whose features were changed, ``"all blocks"``, or what of the input was.
        clean_loss, loss: mean loss of the samples, before and after.
        first_order: the rise that the clean gradient alone predicts for the bound: ``eps`` times its dual norm.
        clean_quality, quality: mean over the samples of what ``quality`` returned; None without it.
    """

    place: str
    clean_loss: float
    loss: float
    first_order: float
    clean_quality: float | None = None
    quality: float | None = None


def attack_features(
    model: nn.Module,
    batches: Iterable[Any],
    attack: Attack,
    *,
    loss: Loss | None = None,
    quality: Quality | None = None,
    together: bool = False,
    blocks: Sequence[MLPBlock] | None = None,
) -> tuple[Robustness, ...]:
    """Change what enters MLP blocks, after their norm, so that the loss rises.

    Args:
        model: any model; it stays as it is, and runs in the mode that it is in with the same random numbers each time.
        batches: items as for :func:`lazyneuron.measure`.
        attack: how.
        loss: from (output, batch) to the batch's mean loss or to one loss a sample; None takes ``output.loss``.
        quality: from (output, batch) to a number, such as the share of right answers.
        together: change the features of all blocks at once, instead of one block at a time.
        blocks: the blocks; None finds them.

    Returns:
        One entry a block, or a single one.

    Raises:
        NoBlocksError: the model has no MLP block.
        ConfigError: the loss is missing or of the wrong shape.
        DataError: there are no batches, the model cannot run on one, or a block did not run.

    Cost: ``steps + 1`` forwards and ``steps`` backwards for each batch and entry.
    """
    found = blocks_of(model, blocks)
    groups = {"all blocks": list(found)} if together else {block.name: [block] for block in found}
    items = list(batches)
    return tuple(
        _attack(model, items, attack, loss=loss, quality=quality, place=name, blocks=group)
        for name, group in groups.items()
    )


def attack_inputs(
    model: nn.Module,
    batches: Iterable[Any],
    attack: Attack,
    *,
    loss: Loss | None = None,
    quality: Quality | None = None,
    key: str | None = None,
    bounds: tuple[float, float] | None = None,
) -> Robustness:
    """Change the model's input so that the loss rises: images and other real inputs, or the embeddings of tokens.

    Args:
        model: as for :func:`attack_features`.
        batches: likewise.
        attack: how; ``eps`` is in the units that the model receives, so divide by the deviation of normalised images.
        loss: likewise.
        quality: likewise.
        key: which argument of a mapping is changed; None takes the first that holds real numbers, and where there is
            none the output of the model's input embedding.
        bounds: least and largest value of a legal input, in the same units; None for no limit.

    Returns:
        What was achieved.

    Raises:
        ConfigError: the loss is missing or of the wrong shape.
        DataError: there are no batches, the model cannot run on one, or there is nothing to change.

    Cost: ``steps + 1`` forwards and ``steps`` backwards for each batch.
    """
    items = list(batches)
    place = key or (input_of(model, items[0]) if items else "")
    return _attack(model, items, attack, loss=loss, quality=quality, place=place, key=place, bounds=bounds)


def _attack(
    model: nn.Module,
    batches: Sequence[Any],
    attack: Attack,
    *,
    loss: Loss | None,
    quality: Quality | None,
    place: str,
    blocks: Sequence[MLPBlock] = (),
    key: str | None = None,
    bounds: tuple[float, float] | None = None,
) -> Robustness:
    if not batches:
        raise DataError("There are no batches to attack; pass at least one.")
    sums = dict.fromkeys(("clean", "attacked", "first", "clean quality", "quality"), 0.0)
    count = 0
    with borrowed(model, observe=True), torch.enable_grad():
        for batch in batches:
            samples = samples_in(batch)
            changed = Perturbed(model, batch, blocks=blocks, key=key)
            count += samples
            for name, value in climb(changed, attack, loss=loss, quality=quality, bounds=bounds).items():
                sums[name] += value
    return Robustness(
        place=place,
        clean_loss=sums["clean"] / count,
        loss=sums["attacked"] / count,
        first_order=sums["first"] / count,
        clean_quality=None if quality is None else sums["clean quality"] / count,
        quality=None if quality is None else sums["quality"] / count,
    )


def climb(
    changed: Perturbed,
    attack: Attack,
    *,
    loss: Loss | None,
    quality: Quality | None,
    bounds: tuple[float, float] | None,
) -> dict[str, float]:
    """One batch's sums over its samples."""
    found: dict[str, float] = {}
    batch, samples = changed.batch, samples_in(changed.batch)
    for step in range(attack.steps + 1):
        last = step == attack.steps
        with torch.set_grad_enabled(not last):
            output = changed.run()
            summed = summed_loss(output, batch, loss, samples=samples)
        if step == 0:
            changed.refuse_missing()
            found["clean"] = float(summed.detach())
            found["clean quality"] = 0.0 if quality is None else samples * float(quality(output, batch))
        if last:
            found["attacked"] = float(summed.detach())
            found["quality"] = 0.0 if quality is None else samples * float(quality(output, batch))
            break
        names = list(changed.deltas)
        gradients = torch.autograd.grad(summed, [changed.deltas[n] for n in names], allow_unused=True)
        with torch.no_grad():
            for name, g in zip(names, gradients, strict=True):
                delta, x = changed.deltas[name], changed.clean[name]
                direction = torch.zeros_like(delta) if g is None else g
                axes = _axes(delta, whole=name not in changed.inner)
                radius = _radius(x, attack, axes)
                if step == 0:
                    found["first"] = found.get("first", 0.0) + _dual(direction, radius, attack.norm, axes)
                moved = delta + _step(direction, attack.share * radius, attack.norm, axes)
                moved = _within(moved, radius, attack.norm, axes)
                if bounds is not None and name == changed.key and name != EMBEDDINGS:
                    moved = (x + moved).clamp(*bounds) - x
                changed.deltas[name] = moved.requires_grad_()
    return found


def _axes(delta: Tensor, *, whole: bool) -> tuple[int, ...]:
    """The axes of one vector: a token's, or a sample's where the input is no sequence of vectors."""
    return tuple(range(1, delta.dim())) if whole and delta.dim() > 1 else (-1,)


def _radius(x: Tensor, attack: Attack, axes: tuple[int, ...]) -> Tensor:
    eps = torch.full_like(x.square().mean(axes, keepdim=True), attack.eps)
    return eps * x.square().mean(axes, keepdim=True).sqrt() if attack.relative else eps


def _dual(g: Tensor, radius: Tensor, norm: str, axes: tuple[int, ...]) -> float:
    size = g.abs().sum(axes, keepdim=True) if norm == "linf" else g.square().sum(axes, keepdim=True).sqrt()
    return float((radius * size).sum())


def _step(g: Tensor, length: Tensor, norm: str, axes: tuple[int, ...]) -> Tensor:
    if norm == "linf":
        return length * g.sign()
    size = g.square().sum(axes, keepdim=True).sqrt()
    return length * g / size.clamp(min=torch.finfo(g.dtype).tiny)


def _within(delta: Tensor, radius: Tensor, norm: str, axes: tuple[int, ...]) -> Tensor:
    if norm == "linf":
        return torch.minimum(torch.maximum(delta, -radius), radius)
    size = delta.square().sum(axes, keepdim=True).sqrt()
    return delta * (radius / size.clamp(min=torch.finfo(delta.dtype).tiny)).clamp(max=1)
