"""How much of what an attack does to a layer's output a change of the layer's weights could do as well."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import blocks_of
from lazyneuron.blocks.recorder import recording
from lazyneuron.core.arguments import check_finite
from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.explain.losses import Loss
from lazyneuron.explain.perturbed import Perturbed, input_of
from lazyneuron.explain.robustness import Attack, climb


@dataclasses.dataclass(frozen=True, kw_only=True)
class Covering:
    """The best change of a layer's weights against what an attack did to its output.

    Attributes:
        place: the block; what stands here is about its deciding layer.
        tokens, width: how many inputs of which width there were. At most ``width`` directions of outputs over tokens
            can be covered, so with few tokens everything is.
        covered: share of the squared change of outputs that one change of the weights, shared by all tokens, repeats.
        chance: what it would be of a change that has nothing to do with the inputs, the rank of these by the tokens.
        shared_norm: length of that change of the weights, by the length of the weights.
        token_norm: root mean square over tokens of the shortest change of a token's own copy of the weights that
            repeats all, ``|change_t| / |x_t|``, by the length of the weights. Augmented flatness is about these copies.
    """

    place: str
    tokens: int
    width: int
    covered: float
    chance: float
    shared_norm: float
    token_norm: float


class CoveringSums:
    """Adds up inputs of a layer and the changes of its outputs.

    Args:
        weight: of the layer, (neurons, width).
        place: its name.
    """

    def __init__(self, weight: Tensor, place: str = "") -> None:
        neurons, width = weight.shape
        self._place, self._size = place, float(weight.detach().double().norm())
        self._gram = torch.zeros(width, width, dtype=torch.float64, device=weight.device)
        self._cross = torch.zeros(width, neurons, dtype=torch.float64, device=weight.device)
        self._change = self._own = 0.0
        self._tokens = 0
        self._eps = torch.finfo(torch.float64).eps

    def add(self, x: Tensor, change: Tensor) -> None:
        """Add some tokens.

        Args:
            x: what the layer receives without the attack, (..., width), in the dtype in which it was computed.
            change: of what it returns, (..., neurons).

        Raises:
            ShapeError: they do not fit the weights or each other.
            DataError: they are no tensors, or not finite; what was added before stays.
        """
        for name, value in (("Inputs of a layer", x), ("Changes of its outputs", change)):
            check_finite(name, value)
        if x.shape[:-1] != change.shape[:-1] or (x.shape[-1], change.shape[-1]) != tuple(self._cross.shape):
            raise ShapeError(
                f"Inputs and changes of outputs are (..., {self._cross.shape[0]}) and (..., {self._cross.shape[1]}), "
                f"got {tuple(x.shape)} and {tuple(change.shape)}."
            )
        rows, moved = (t.detach().reshape(-1, t.shape[-1]).double() for t in (x, change))
        if x.is_floating_point():
            self._eps = max(self._eps, torch.finfo(x.dtype).eps)
        self._gram += rows.t() @ rows
        self._cross += rows.t() @ moved
        lengths, moves = rows.square().sum(-1), moved.square().sum(-1)
        self._change += float(moves.sum())
        self._own += float((moves / lengths).nan_to_num(posinf=math.inf).sum())
        self._tokens += len(rows)

    def _cut(self, width: int) -> float:
        """Below what share of the largest eigenvalue one of the Gram matrix may be rounding alone.

        Rounding the inputs once, each entry for itself, adds about ``(eps / 2)^2 / 3`` of the largest diagonal entry.
        What computed them worked in float32 at least, but its errors may be common to a token (a norm's mean): a factor
        of the width. Below both lie the sums, in float64.
        """
        inner = min(self._eps, torch.finfo(torch.float32).eps)
        return self._eps**2 + width * max(inner**2, torch.finfo(torch.float64).eps)

    def result(self) -> Covering:
        """The best change, by least squares; NaN where nothing changed.

        Directions in which the inputs differ by no more than the rounding of their dtype are left out.
        """
        width = len(self._gram)
        values, vectors = torch.linalg.eigh(self._gram)
        there = values > values[-1:].clamp(min=0) * self._cut(width)
        parts = (vectors.t() @ self._cross)[there]
        values = values[there]
        covered = float((parts.square().sum(-1) / values).sum())
        change = (parts / values[:, None]).norm()
        return Covering(
            place=self._place,
            tokens=self._tokens,
            width=width,
            covered=covered / self._change if self._change > 0 else math.nan,
            chance=int(there.sum()) / max(self._tokens, 1),
            shared_norm=float(change) / self._size if self._size > 0 else math.nan,
            token_norm=math.sqrt(self._own / max(self._tokens, 1)) / self._size if self._size > 0 else math.nan,
        )


def cover_attack(
    model: nn.Module,
    batches: Iterable[Any],
    attack: Attack,
    *,
    loss: Loss | None = None,
    features: bool = False,
    key: str | None = None,
    blocks: Sequence[MLPBlock] | None = None,
) -> tuple[Covering, ...]:
    """Attack a model, and ask how much of the change in front of each block's neurons its weights could make.

    An attack on the input that weights can repeat is one that flatness in the weights protects from as well.

    Args:
        model: any model; it stays as it is.
        batches: items as for :func:`lazyneuron.measure`.
        attack: how, with ``eps`` in the units of what is changed.
        loss: from (output, batch) to the batch's mean loss or to one loss a sample; None takes ``output.loss``.
        features: change what enters each block, one block at a time, instead of the model's input.
        key: which argument of a mapping is changed, as for :func:`lazyneuron.explain.attack_inputs`.
        blocks: the blocks; None finds them.

    Returns:
        One entry a block.

    Raises:
        NoBlocksError: the model has no MLP block.
        ConfigError: the loss is missing or of the wrong shape.
        DataError: there are no batches, the model cannot run on one, or a block did not run.

    Cost: an attack for each batch (and block, with ``features``), a Gram matrix of the inputs and an eigenvalue problem
        of their width for each block.

    Source: the probe is named in the authors' code; what it computes here, and the chance level, are ours.
    """
    found, items = blocks_of(model, blocks), list(batches)
    if not items:
        raise DataError("There are no batches to attack; pass at least one.")
    place = None if features else key or input_of(model, items[0])
    sums = {block.name: CoveringSums(block.first.weight, block.name) for block in found}
    with borrowed(model, observe=True), torch.enable_grad():
        for batch in items:
            for group in [[block] for block in found] if features else [list(found)]:
                changed = Perturbed(model, batch, blocks=group if features else (), key=place)
                with _inputs(() if features else group) as seen:
                    climb(changed, attack, loss=loss, quality=None, bounds=None)
                for block in group:
                    x, moved = _change(block, changed, seen, features=features)
                    sums[block.name].add(x, moved @ block.first.weight.detach().t())
    return tuple(one.result() for one in sums.values())


def _change(
    block: MLPBlock, changed: Perturbed, seen: dict[str, tuple[Tensor, Tensor]], *, features: bool
) -> tuple[Tensor, Tensor]:
    """What the block's deciding layer receives without the attack, and by how much that moved."""
    if features:
        return changed.clean[block.name], changed.deltas[block.name].detach()
    if block.name not in seen:
        raise DataError(f"{block.name!r} did not run in this forward; pass batches that run through it.")
    first, last = seen[block.name]
    return first, last - first


@contextlib.contextmanager
def _inputs(blocks: Sequence[MLPBlock]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """What each block's deciding layer received in the first and in the latest forward of the body."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(block: MLPBlock, x: Tensor) -> None:
        first = seen[block.name][0] if block.name in seen else x.detach().clone()
        seen[block.name] = (first, x.detach())

    with recording(blocks, inputs=keep):
        yield seen
