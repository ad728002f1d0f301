"""What a certified head really did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import nn

from lazyneuron.accelerate.head.execution import CERTIFIED, CertifiedHead
from lazyneuron.core.arguments import check_model
from lazyneuron.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadStatus:
    """A certified head's calls within ``generate``.

    Attributes:
        last: ``"certified"``, or why the last call computed all entries.
        certified_calls: calls that computed a part of the entries.
        fallbacks: the others, by reason.
        computed_a_token: entries computed for each token of the certified calls; None before the first.
        added_bytes: memory of the sketch, now.
    """

    last: str
    certified_calls: int
    fallbacks: Mapping[str, int]
    computed_a_token: float | None
    added_bytes: int


def certified_head(model: nn.Module) -> CertifiedHead | None:
    """What runs in place of a model's head, or None."""
    heads = (module.__dict__.get("forward") for module in model.modules())
    return next((head for head in heads if isinstance(head, CertifiedHead)), None)


def head_status(model: nn.Module) -> HeadStatus:
    """What the certified head of a model did.

    Args:
        model: on which :func:`lazyneuron.certify_head_` was called; also a copy.

    Raises:
        ConfigError: it has no certified head.
    """
    check_model(model)
    head = certified_head(model)
    if head is None:
        raise ConfigError("This model has no certified head; call certify_head_ on it, or pass the model it was on.")
    ran = dict(head.ran)
    return HeadStatus(
        last=head.last,
        certified_calls=ran.pop(CERTIFIED, 0),
        fallbacks=ran,
        computed_a_token=head.computed / head.tokens if head.tokens else None,
        added_bytes=head.added_bytes,
    )
