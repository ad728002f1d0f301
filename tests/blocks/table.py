"""The documentation's table of architectures: ``python -m tests.blocks.table`` writes it anew.

Every row is what a search says of a small model with random weights, and what ``accelerate_`` would do with it.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from lazyneuron.accelerate import plan_acceleration
from lazyneuron.blocks import find
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import LazyNeuronError
from lazyneuron.induce import Relufy, sparsify_
from lazyneuron.report import markdown_table
from tests.blocks.architectures import KNOWN, Known

PAGE = Path(__file__).resolve().parents[2] / "docs" / "blocks.md"
MARKED = re.compile(r"(<!-- table -->\n).*?(<!-- /table -->)", re.DOTALL)


def row(known: Known) -> dict[str, str | int]:
    """One architecture."""
    model = known.model()
    found = find(model, known.batch)
    blocks = found.blocks
    first = blocks[0] if blocks else None
    return {
        "model": known.title,
        "blocks": len(blocks),
        "kind": "-" if first is None else "gated" if first.gate is not None else "plain",
        "activation": "-" if first is None else f"`{first.activation.kind}`",
        "norm": _norms(blocks),
        "stands in": "-" if first is None else "one module" if first.container is not None else "several modules",
        "sparse execution": _execution(known, found.rejected),
        "remark": known.note or "-",
    }


def _norms(blocks: tuple[MLPBlock, ...]) -> str:
    names = sorted({block.norm.rpartition(".")[2] for block in blocks if block.norm is not None})
    return ", ".join(f"`{name}`" for name in names) or "-"


def _execution(known: Known, rejected: tuple[object, ...]) -> str:
    """Whether every block can be executed sparsely, if need be after its function was replaced by ReLU."""
    if not known.count:
        return f"no: {rejected[0].reason}"  # type: ignore[attr-defined]
    model = known.model()
    names = {block.name for block in plan_acceleration(model).matched}
    blocks = {block.name for block in find(model).blocks}
    if names == blocks:
        return "yes"
    try:
        sparsify_(model, Relufy())
    except LazyNeuronError as error:
        return f"no: {error}"
    after = plan_acceleration(model)
    skipped = [change.reason for change in after.skipped if change.block in blocks]
    return f"no: {skipped[0]}" if skipped else "yes, with ReLU"


def table() -> str:
    """The table as Markdown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own
        return markdown_table([row(known) for known in KNOWN.values()]) + "\n"


def main() -> None:
    """Put the table into the page."""
    text = table()
    PAGE.write_text(MARKED.sub(lambda m: m[1] + text + m[2], PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
