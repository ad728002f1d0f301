"""The models in this process that stand beside the other engines."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.core.errors import LazyNeuronError, TimingWarning
from lazyneuron.experiments.demo.variants import int8
from lazyneuron.experiments.engines.beside import Own

TORCH, EXACT, QUANTISED = "PyTorch fp32", "ours, exact", "ours, int8"


def own(original: nn.Module, sparse: nn.Module, batches: Sequence[Any]) -> tuple[dict[str, Own], tuple[str, ...]]:
    """PyTorch as it is and with its dynamic int8, and the sparse model accelerated, with and without quantised weights.

    Args:
        original: the encoder as it was.
        sparse: the one that was made sparse; both stay as they are.
        batches: what ``accelerate_`` decides on.

    Returns:
        The models by name, and a sentence for each that cannot be had here.
    """
    found = {
        TORCH: Own(model=original, needs="nothing"),
        "PyTorch dynamic int8": Own(model=int8(original), needs="nothing"),
    }
    notes = []
    for name, options in ((EXACT, {}), (QUANTISED, {"weights": "int8", "rest": "int8"})):
        model = copy.deepcopy(sparse)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TimingWarning)  # the demo has told it of the same blocks
                accelerate_(model, batches, **options)  # type: ignore[arg-type]
        except LazyNeuronError as error:
            notes.append(f"{name} does not run: {error}")
            continue
        found[name] = Own(model=model, needs="a sparse model", ours=True)
    return found, tuple(notes)
