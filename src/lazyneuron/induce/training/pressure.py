"""Which penalty pushes on the neurons of a model while it is trained, and how hard."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.recorder import recording
from lazyneuron.core.errors import ConfigError
from lazyneuron.induce.training.controller import TargetDensity
from lazyneuron.induce.training.penalty import (
    PENALTIES,
    firing_penalty,
    hoyer_penalty,
    l1_penalty,
    log_penalty,
    real_rows,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pressure:
    """A penalty and the density that it is to bring about.

    Attributes:
        target: the density to reach; it sets the penalty's coefficient by feedback.
        penalty: one of ``"firing"`` (a smooth count of the neurons that fire), ``"l1"``, ``"log"``, ``"hoyer"``.
        scale: width of the smooth step of ``"firing"``, knee of ``"log"``; the others do not use it.
        weighted: count a neuron by the norm of its column of ``down``, which makes the penalty blind to moving scale
            from ``up`` to ``down``; ``"firing"`` does not use it.
    """

    target: TargetDensity
    penalty: str = "firing"
    scale: float = 0.1
    weighted: bool = True

    def __post_init__(self) -> None:
        if self.penalty not in PENALTIES:
            raise ConfigError(f"Unknown penalty {self.penalty!r}; known are {', '.join(PENALTIES)}.")
        if not self.scale > 0:
            raise ConfigError(f"The scale of a penalty is a number > 0, got {self.scale}.")

    def of(self, block: MLPBlock, z: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """This penalty of one block.

        Args:
            block: the block; its activation says where a neuron is silent.
            z: its pre-activations (..., d_hidden).
            mask: nonzero where a token is real; the leading axes of ``z``.

        Returns:
            A scalar; under tensor parallelism this process's part of it, so that the parts add up to the whole block's.

        Raises:
            ConfigError: the penalty is ``"firing"`` and the activation has no zero interval, or ``"hoyer"`` where each
                process has some of the neurons only.
            ShapeError: the mask does not fit.
            DataError: no token is real.
        """
        share = z.shape[-1] / block.d_hidden
        if share < 1 and self.penalty == "hoyer":
            raise ConfigError(
                f"The hoyer penalty couples all neurons of {block.name}, of which each process has some only; use "
                "another penalty."
            )
        return share * self._of(block, z.float(), mask)

    def _of(self, block: MLPBlock, z: Tensor, mask: Tensor | None) -> Tensor:
        if self.penalty == "firing":
            if block.activation.zero.empty:
                raise ConfigError(
                    f"The firing penalty needs a zero interval, and {block.name} has the activation "
                    f"{block.activation.kind}; use another penalty."
                )
            end = block.activation.zero.high if block.activation.zero.low < block.activation.zero.high else None
            left = block.activation.zero.left
            return firing_penalty(z, scale=self.scale, end=left if end is None else end, mask=mask)
        h = block.activation(z)
        weight = _column_norms(block, h.shape[-1]) if self.weighted else None
        if self.penalty == "log":
            return log_penalty(h, scale=self.scale, mask=mask, weight=weight)
        return (l1_penalty if self.penalty == "l1" else hoyer_penalty)(h, mask=mask, weight=weight)


def _column_norms(block: MLPBlock, neurons: int) -> Tensor:
    """Norms of the columns of ``down``, of the neurons that this process has."""
    norms: Any = block.down.effective_weight.detach().float().norm(dim=0)
    if isinstance(norms, Tensor) and not hasattr(norms, "full_tensor"):
        return norms
    found: Tensor = norms.to_local() if neurons < block.d_hidden else norms.full_tensor()
    return found


def density_of(block: MLPBlock, z: Tensor, *, mask: Tensor | None = None) -> float:
    """Share of a block's neurons that are not silent at these pre-activations, over real tokens."""
    rows = real_rows(z.detach(), mask)
    silent = block.activation.zero.contains(rows) if block.activation.elementwise else block.activation(rows) == 0
    return float((~silent).float().mean())


@contextlib.contextmanager
def pre_activations(blocks: Sequence[MLPBlock]) -> Iterator[dict[str, Tensor]]:
    """Catch what decides which neurons fire, with its gradient.

    Args:
        blocks: the blocks to watch.

    Yields:
        A dictionary from block name to the pre-activation of that block's latest call; clear it between forwards.
    """
    caught: dict[str, Tensor] = {}
    with recording(blocks, pre_activations=lambda block, z: caught.update({block.name: z}), graph=True):
        yield caught


def fitting(mask: Tensor | None, value: Tensor) -> Tensor | None:
    """The mask if it has the token axes of ``value``, else None."""
    return mask if mask is not None and mask.shape == value.shape[:-1] else None


def tokens_in(blocks: Sequence[MLPBlock], caught: dict[str, Tensor], *, mask: Tensor | None) -> int:
    """Real tokens that the first block which ran has seen; 0 when none ran."""
    z = next((caught[block.name] for block in blocks if block.name in caught), None)
    if z is None:
        return 0
    own = fitting(mask, z)
    return z.shape[:-1].numel() if own is None else int(own.bool().sum())


def total_pressure(
    pressure: Pressure, blocks: Sequence[MLPBlock], *, caught: dict[str, Tensor], mask: Tensor | None
) -> tuple[Tensor, float]:
    """Mean penalty and mean density of the blocks that ran.

    Args:
        pressure: the penalty.
        blocks: the blocks that were watched.
        caught: what :func:`pre_activations` gave.
        mask: nonzero where a token is real; used where it has a block's token axes.

    Returns:
        The penalty (with gradient) and the density.

    Raises:
        ConfigError: no block ran.
    """
    penalties: list[Tensor] = []
    densities: list[float] = []
    for block in blocks:
        z = caught.get(block.name)
        if z is None:
            continue
        own = fitting(mask, z)
        penalties.append(pressure.of(block, z, mask=own))
        densities.append(density_of(block, z, mask=own))
    if not penalties:
        raise ConfigError("None of the blocks ran in this forward; pass batches that run through them.")
    return torch.stack(penalties).mean(), sum(densities) / len(densities)
