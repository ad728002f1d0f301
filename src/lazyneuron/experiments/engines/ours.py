"""Ours beside the other engines: models in this process, and the sparse one exported to OpenVINO."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.core.errors import LazyNeuronError, TimingWarning
from lazyneuron.experiments.demo.variants import int8
from lazyneuron.experiments.engines.beside import Own
from lazyneuron.experiments.engines.engine import OPENVINO, Engine
from lazyneuron.export import export

TORCH, EXACT, QUANTISED = "PyTorch fp32", "ours, exact", "ours, int8"
_EXPORTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"weights": "bf16"},
    "int8 blocks": {"weights": "int8"},  # the rest in what OpenVINO takes for fastest
    "int8": {"weights": "int8", "rest": "int8"},
}


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


@contextmanager
def exported(
    sparse: nn.Module, batches: Sequence[Any], *, formats: Sequence[str] = tuple(_EXPORTS), model: str = ""
) -> Iterator[tuple[tuple[Engine, ...], tuple[str, ...]]]:
    """The sparse model in OpenVINO, its MLP blocks as operators of ours; the folders are gone afterwards.

    Args:
        sparse: the one that was made sparse; it stays as it is.
        batches: what the export decides and calibrates on.
        formats: of ``"fp32"``, ``"bf16"``, ``"int8 blocks"`` and ``"int8"``.
        model: what the engines' names say of it besides.

    Yields:
        An engine for each, and a sentence for each that cannot be had here.
    """
    with tempfile.TemporaryDirectory(prefix="lazyneuron-exported-") as name:
        engines, notes = [], []
        for form in formats:
            called, folder = f"ours in OpenVINO, {form}{model and f', {model}'}", Path(name) / form
            try:
                export(sparse, folder, batches=batches, **_EXPORTS[form])
            except LazyNeuronError as error:
                notes.append(f"{called} does not run: {error}")
                continue
            needs = "a sparse model, export" + (", calibration lines" if form == "int8" else "")
            engines.append(Engine(name=called, worker=OPENVINO, format=form, needs=needs, exported=folder))
        yield tuple(engines), tuple(notes)
