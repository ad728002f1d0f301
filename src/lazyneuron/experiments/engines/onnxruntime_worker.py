"""A Hugging Face encoder in ONNX Runtime: fp32, or int8 by its dynamic quantisation. No lazyneuron here."""

from __future__ import annotations

import importlib
import os
from importlib import metadata
from typing import Any


class Engine:
    """The model of a folder. ``facts`` has versions and settings."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        ort = importlib.import_module("onnxruntime")
        shared = importlib.import_module("encoder_inputs")
        self._inputs = shared.Inputs(wanted["inputs"])
        path = os.path.join(wanted["folder"], "model.onnx")
        if not os.path.exists(path):
            _export(shared, wanted["model"], path)
        settings: dict[str, Any] = {"intra_op_num_threads": wanted["threads"], "graph_optimization_level": "ALL"}
        if wanted["format"] == "int8":
            quantisation = importlib.import_module("onnxruntime.quantization")
            quantised = os.path.join(wanted["folder"], "model-int8.onnx")
            dynamic = {"weight_type": quantisation.QuantType.QInt8, "per_channel": True}
            quantisation.quantize_dynamic(path, quantised, **dynamic)
            settings |= {"weight_type": "QInt8", "per_channel": True}
            path = quantised
        options = ort.SessionOptions()
        options.intra_op_num_threads = wanted["threads"]
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._run = lambda batch: session.run(None, batch)[0]
        self.facts = {
            "versions": {name: metadata.version(name) for name in ("onnxruntime", "onnx")},
            "settings": settings,
        }

    def time(self, case: str, number: int, runs: int) -> list[float]:
        """Milliseconds of each of so many runs on a case, after one that is not counted."""
        times: list[float] = self._inputs.time(self._run, case, number, runs)
        return times

    def embed(self, path: str) -> list[float]:
        """Write the embeddings of the held-out lines to a file."""
        self._inputs.embed(self._run, path)
        return []


def _export(shared: Any, folder: str, path: str) -> None:
    torch = importlib.import_module("torch")
    axes = {"input_ids": {0: "lines", 1: "tokens"}, "attention_mask": {0: "lines", 1: "tokens"}}
    part = f"{path}.part"
    torch.onnx.export(
        shared.torch_model(folder), (), part, kwargs=shared.example(), input_names=list(axes),
        output_names=["last_hidden_state"], dynamic_axes=axes, opset_version=17, dynamo=False,
    )  # fmt: skip
    os.replace(part, path)
