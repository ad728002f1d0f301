"""Noise on the skip connection around a block that is fresh for every token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import Skip
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.modules.installed import add_after_, add_hook_, first_of, with_first


@torch.no_grad()
def skip_noise(x: Tensor, *, rho: float, generator: torch.Generator | None = None) -> Tensor:
    """The noise that a skip connection gets: ``rho / (10 sqrt(d)) ||x_t|| xi_t``.

    A skip connection is a layer whose weights are the identity, with ``1 / sqrt(d)`` as their root mean square; so this
    is :func:`token_noise` of that layer at a tenth of the strength.

    Args:
        x: what is carried on, (..., d).
        rho: strength.
        generator: the source; None uses torch's own.

    Returns:
        A tensor like ``x``, without gradient.
    """
    sigma = rho / (10 * math.sqrt(x.shape[-1]))
    length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    noise: Tensor = (sigma * length * torch.randn(x.shape, generator=generator, device=x.device)).to(x.dtype)
    return noise


def add_skip_noise_(change: Transaction, block: MLPBlock, skip: Skip, rho: float) -> None:
    """Give the skip connection around a block its noise, in training mode only.

    One hook, at the norm, sees what the connection carries; another adds the noise where that and the block's output
    have been added up, so that a dropout of the block's output does not reach it.
    """
    assert block.norm is not None
    pending: list[Tensor] = []
    add_after_(change, change.model.get_submodule(block.norm), _Seen(pending, skip.carries == "input", rho))
    place = change.model.get_submodule(skip.place)
    if skip.side == "output":
        add_after_(change, place, _AddedAfter(pending))
    else:
        add_hook_(change, place, _AddedBefore(pending))


class _Seen:
    only_in_training = True

    def __init__(self, pending: list[Tensor], before: bool, rho: float) -> None:
        self._pending = pending
        self._before = before
        self._rho = rho

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> None:
        if module.training:
            carried = first_of(args, kwargs) if self._before else output
            self._pending[:] = [skip_noise(carried, rho=self._rho)]


class _AddedAfter:
    only_in_training = True

    def __init__(self, pending: list[Tensor]) -> None:
        self._pending = pending

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        if not _waiting(self._pending, module):
            return None
        leaves, structure = tree_flatten(output)
        first = next(k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
        leaves[first] = leaves[first] + self._pending.pop().view_as(leaves[first])
        return tree_unflatten(leaves, structure)


class _AddedBefore:
    only_in_training = True

    def __init__(self, pending: list[Tensor]) -> None:
        self._pending = pending

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not _waiting(self._pending, module):
            return None
        x = first_of(args, kwargs)
        return with_first(args, kwargs, x + self._pending.pop().view_as(x))


def _waiting(pending: list[Tensor], module: nn.Module) -> bool:
    """Whether there is noise to add; what a forward in training mode left when it failed is dropped in evaluation."""
    if not module.training:
        pending.clear()
    return bool(pending)
