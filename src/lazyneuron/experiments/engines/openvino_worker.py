"""A Hugging Face encoder in OpenVINO: fp32, bf16, or int8 by NNCF's post-training quantisation; or a model of ours.

No lazyneuron here: an exported model needs its folder alone.
"""

from __future__ import annotations

import importlib
import os
from importlib import metadata
from typing import Any

_HINTS = {"fp32": "f32", "bf16": "bf16"}


class Engine:
    """The model of a folder, or one that OpenVINO saved. ``facts`` has versions, settings and what it computes in."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        ov = importlib.import_module("openvino")
        shared = importlib.import_module("encoder_inputs")
        self._inputs = shared.Inputs(wanted["inputs"])
        versions = {"openvino": metadata.version("openvino")}
        core = ov.Core()
        ours = wanted.get("exported")
        if ours:
            core.add_extension(wanted["extension"])
        saved = os.path.join(ours, "model.xml") if ours else os.path.join(wanted["folder"], "openvino.xml")
        if not os.path.exists(saved):
            model = ov.convert_model(shared.torch_model(wanted["model"]), example_input=shared.example())
            ov.save_model(model, saved, compress_to_fp16=False)
        model = core.read_model(saved)
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": wanted["threads"], "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
        }  # fmt: skip
        if wanted["format"] in _HINTS:
            settings["INFERENCE_PRECISION_HINT"] = _HINTS[wanted["format"]]
        elif not ours:
            nncf = importlib.import_module("nncf")
            versions["nncf"] = metadata.version("nncf")
            lines = self._inputs.calibration
            model = nncf.quantize(
                model, nncf.Dataset(lines), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(lines)
            )
        compiled = core.compile_model(model, "CPU", settings)
        request, output = compiled.create_infer_request(), compiled.output(0)
        self._run = lambda batch: request.infer(batch)[output]
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.facts = {"versions": versions, "settings": settings | {"computes in": hint}}

    def time(self, case: str, number: int, runs: int) -> list[float]:
        """Milliseconds of each of so many runs on a case, after one that is not counted."""
        times: list[float] = self._inputs.time(self._run, case, number, runs)
        return times

    def embed(self, path: str) -> list[float]:
        """Write the embeddings of the held-out lines to a file."""
        self._inputs.embed(self._run, path)
        return []
