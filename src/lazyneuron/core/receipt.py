"""The JSON-able record of an in-place change to a model."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping
from typing import Any

from lazyneuron.core.errors import MALFORMED, CheckpointError, said

FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockChange:
    """What one verb did to one block, and why.

    Attributes:
        block: dotted name of the block in the model.
        action: one word, e.g. ``"accelerated"``, ``"replaced"``, ``"skipped"``, ``"dense"``.
        reason: one sentence that says why.
        details: JSON-able facts (densities, times in ms, choices per token count).
    """

    block: str
    action: str
    reason: str
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Receipt:
    """The record of one in-place change; enough, with the model, to undo it.

    Attributes:
        verb: the function that made the change, e.g. ``"accelerate_"``.
        config: its JSON-able arguments.
        changes: one entry for each block looked at, changed or skipped.
        notes: sentences about the whole change.
        id: unique name of the change; :func:`lazyneuron.restore_` looks it up on the model.
    """

    verb: str
    config: Mapping[str, Any]
    changes: tuple[BlockChange, ...]
    notes: tuple[str, ...] = ()
    id: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)

    def to_data(self) -> dict[str, Any]:
        """This receipt as JSON-able data."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """This receipt as a JSON document."""
        return json.dumps(self.to_data(), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Receipt:
        """The receipt written by :meth:`to_json`.

        Raises:
            CheckpointError: the text is not such a document.
        """
        try:
            raw = json.loads(text)
            if raw.pop("format") != FORMAT:
                raise ValueError("unknown format number")
            changes = tuple(BlockChange(**c) for c in raw.pop("changes"))
            receipt = Receipt(changes=changes, notes=tuple(raw.pop("notes")), **raw)
            texts = [receipt.verb, receipt.id, *receipt.notes, *(t for c in changes for t in (c.block, c.action))]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a name in it is no text")
            if not all(isinstance(facts, dict) for facts in (receipt.config, *(c.details for c in changes))):
                raise ValueError("its arguments or details are no table")
            receipt.to_json()  # what is nested too deeply can be read, but not written
            return receipt
        except MALFORMED as error:
            raise CheckpointError(
                f"This is not a lazyneuron receipt ({said(error)}); pass the JSON text that Receipt.to_json wrote."
            ) from error
