"""Span corruption: short spans are replaced by one sentinel each, and the model writes them out."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.core.errors import ShapeError


def span_lengths(total: int, parts: int, generator: torch.Generator) -> list[int]:
    """``parts`` lengths >= 1 that sum to ``total``, every such list equally likely."""
    cuts = (torch.randperm(total - 1, generator=generator)[: parts - 1] + 1).sort().values.tolist()
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


def corrupt(
    rows: Tensor, *, first_sentinel: int, generator: torch.Generator, share: float = 0.15, mean_span: float = 3.0
) -> tuple[Tensor, Tensor]:
    """Take spans out of each row.

    Args:
        rows: token ids (batch, length).
        first_sentinel: id of the first sentinel; the next spans take the next ids.
        generator: where the spans lie.
        share: of the tokens that are taken out.
        mean_span: tokens in a span, on average.

    Returns:
        The inputs (batch, length - taken + spans), each span replaced by its sentinel, and the targets
        (batch, taken + spans), each sentinel followed by its span. The same counts in every row, so nothing is padded.

    Raises:
        ShapeError: the rows are too short to take a span out and leave one.

    Source: Raffel et al., 2020 (T5), section 3.3.4: 15 % of the tokens, spans of 3 on average.
    """
    length = rows.shape[-1]
    taken = round(length * share)
    spans = max(1, round(taken / mean_span))
    if rows.ndim != 2 or taken < spans or length - taken < spans:
        raise ShapeError(f"Rows of shape {tuple(rows.shape)} are too short to take {share:.0%} out in spans.")
    inputs, targets = [], []
    for row in rows:
        kept, gone = span_lengths(length - taken, spans, generator), span_lengths(taken, spans, generator)
        left, right, at = [], [], 0
        for number, (keep, drop) in enumerate(zip(kept, gone, strict=True)):
            sentinel = row.new_tensor([first_sentinel + number])
            left += [row[at : at + keep], sentinel]
            right += [sentinel, row[at + keep : at + keep + drop]]
            at += keep + drop
        inputs.append(torch.cat(left))
        targets.append(torch.cat(right))
    return torch.stack(inputs), torch.stack(targets)
