"""OpenVINO for the tests of this folder: whether it is here, and a block alone in a graph."""

from __future__ import annotations

import functools
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lazyneuron.blocks import MLPBlock
from lazyneuron.export.openvino.choice import alone
from lazyneuron.export.openvino.convert import core_with
from lazyneuron.export.openvino.extension import extension
from lazyneuron.export.openvino.layout import PackedOperator, packed_operator
from tests.kernels import NATIVE

HERE = importlib.util.find_spec("openvino") is not None and NATIVE and shutil.which("c++") is not None
needs_openvino = pytest.mark.skipif(not HERE, reason="openvino, the native kernels or a compiler is not installed")
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


@functools.cache
def library() -> Path:
    """The extension, compiled at its first use."""
    return extension()


def run(block: MLPBlock, x: Tensor, weights: str = "keep") -> Tensor:
    """The block through OpenVINO, in float32."""
    return run_packed(packed_operator(block, weights), x)


def run_packed(packed: PackedOperator, x: Tensor) -> Tensor:
    """An operator through OpenVINO, in float32."""
    return evaluate(core_with(library()).compile_model(alone(packed, library()), "CPU", EXACT), x)


def evaluate(compiled: Any, x: Tensor) -> Tensor:
    """The first output for a tensor."""
    return torch.from_numpy(compiled([x.float().contiguous().numpy()])[0].copy())
