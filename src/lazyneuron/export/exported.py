"""What was exported, and what became of each block."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lazyneuron.core.receipt import BlockChange


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """What :func:`lazyneuron.export` wrote.

    Attributes:
        folder: where it lies.
        config: the JSON-able arguments, with the versions of the engine.
        changes: one entry for each block: ``"exported"`` as an operator of ours, ``"dense"`` or ``"skipped"``, and why.
        output_error: of the engine's first floating-point output on the batches, relative to torch's: largest
            difference and root mean square, both over the RMS of torch's.
    """

    folder: Path
    config: dict[str, Any]
    changes: tuple[BlockChange, ...]
    output_error: dict[str, float]

    def to_data(self) -> dict[str, Any]:
        """This as JSON-able data."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}
