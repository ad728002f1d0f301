"""The other engines: what runs each, and what a user has to do for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lazyneuron.export.openvino.extension import LOADER

_HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """One way in which another engine runs a model.

    Attributes:
        name: as rows show it.
        worker: the file with its ``Engine``.
        format: what it computes in, as the worker knows it.
        needs: what a user has to do first.
        exported: the folder of a model of ours that it runs in place of the encoder's; None for the encoder itself.
    """

    name: str
    worker: str
    format: str
    needs: str
    exported: Path | None = None

    @property
    def file(self) -> Path:
        """Where the worker is."""
        return _HERE / self.worker


_ORT, OPENVINO = "onnxruntime_worker.py", "openvino_worker.py"
ENGINES = (
    Engine(name="ONNX Runtime fp32", worker=_ORT, format="fp32", needs="export"),
    Engine(name="ONNX Runtime dynamic int8", worker=_ORT, format="int8", needs="export"),
    Engine(name="OpenVINO fp32", worker=OPENVINO, format="fp32", needs="export"),
    Engine(name="OpenVINO bf16", worker=OPENVINO, format="bf16", needs="export"),
    Engine(name="OpenVINO int8 (NNCF)", worker=OPENVINO, format="int8", needs="export, calibration lines"),
)


def wanted(engine: Engine, *, model: Path, folder: Path, inputs: Path, threads: int) -> dict[str, Any]:
    """What a worker is made of.

    Args:
        engine: which.
        model: the folder of a Hugging Face encoder.
        folder: where the engines put their models.
        inputs: the file of token ids.
        threads: that it uses.
    """
    made = {"model": str(model), "folder": str(folder), "inputs": str(inputs), "threads": threads}
    made |= {"format": engine.format}
    if engine.exported is None:
        return made
    return made | {"exported": str(engine.exported), "extension": str(engine.exported / LOADER)}
