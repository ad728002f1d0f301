"""Which tokens of a batch are real."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from lazyneuron.blocks.recorder import fit_mask
from lazyneuron.core.arguments import check_batches, described
from lazyneuron.core.batch import padding_mask
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.measure.tally import Tokens

TokensMask = Callable[[Any], Tensor | None] | Iterable[Tensor]

EXCLUDED, NO_MASK, MISFIT = "excluded", "no mask", "mask did not fit"


def with_masks(batches: Iterable[Any], tokens_mask: TokensMask | None) -> Iterator[tuple[Any, BatchMask]]:
    """Each batch beside its mask.

    Args:
        batches: the batches.
        tokens_mask: a function from a batch to its mask, or one mask for each batch; None takes ``attention_mask``.

    Raises:
        ConfigError: ``tokens_mask`` is a single tensor.
        DataError: ``batches`` is a single batch, a mask is no tensor, or there are fewer masks than batches.
    """
    check_batches(batches)
    if isinstance(tokens_mask, Tensor):
        raise ConfigError("tokens_mask is a function or an iterable with one mask a batch, got one tensor; use a list.")
    if not (tokens_mask is None or callable(tokens_mask) or isinstance(tokens_mask, Iterable)):
        got = described(tokens_mask)
        raise ConfigError(
            f"tokens_mask is a function or an iterable with one mask a batch, got {got}; use one of them."
        )
    if tokens_mask is None or callable(tokens_mask):
        of_batch = tokens_mask or padding_mask
        for batch in batches:
            yield batch, BatchMask(of_batch(batch))
        return
    masks = iter(tokens_mask)
    for number, batch in enumerate(batches):
        mask = next(masks, None)
        if mask is None:
            raise DataError(f"tokens_mask ends after {number} masks, but there are more batches; give one for each.")
        yield batch, BatchMask(mask)


class BatchMask:
    """One batch's mask, fitted to the token axes of whatever block asks."""

    def __init__(self, mask: Tensor | None) -> None:
        if mask is not None and not isinstance(mask, Tensor):
            raise DataError(f"A mask is a tensor, nonzero where a token is real, got {type(mask).__name__}.")
        self.mask = mask
        self._fitted: dict[tuple[tuple[int, ...], torch.device], tuple[Tokens, str]] = {}

    def fit(self, leading: tuple[int, ...], device: torch.device) -> tuple[Tokens, str]:
        """The tokens of an activation of shape (*leading, d_hidden), and how padding was treated.

        The mask fits when it has the shape ``leading``, or when the block flattened those axes into one.
        """
        key = (leading, device)
        if key not in self._fitted:
            self._fitted[key] = self._fit(leading, device)
        return self._fitted[key]

    def _fit(self, leading: tuple[int, ...], device: torch.device) -> tuple[Tokens, str]:
        mask = self.mask
        if mask is None:
            return Tokens.of(leading, None, device), NO_MASK
        if fit_mask(mask, leading) is not None:
            return Tokens.of(leading, mask, device), EXCLUDED
        return Tokens.of(leading, None, device), MISFIT
