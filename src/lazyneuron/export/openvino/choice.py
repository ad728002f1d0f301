"""Whether a block runs faster as our operator or as OpenVINO runs it itself, on real inputs and this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks import MLPBlock
from lazyneuron.core.timing import interleaved
from lazyneuron.export.openvino.convert import converted, core_with, node_of, precision
from lazyneuron.export.openvino.layout import PackedOperator, on_copies
from lazyneuron.export.openvino.quantise import quantised

_ROUNDS = 9
_CALIBRATION_ROWS = 64


class Alone(nn.Module):
    """A block by itself, on the model's own layers."""

    def __init__(self, block: MLPBlock) -> None:
        super().__init__()
        self._block = on_copies(block, torch.float32)
        self.layers = nn.ModuleList(site.module for site in self._block.linears)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        return self._block.forward(x)


def times_us(
    block: MLPBlock, packed: PackedOperator, inputs: Tensor, library: Path, *, weights: str, rest: str
) -> tuple[float, float]:
    """How long the block takes as our operator and as OpenVINO's own layers, interleaved.

    Args:
        block: the block.
        packed: what our operator reads.
        inputs: (tokens, d_in) float32, as they arrive together in one call.
        library: the extension.
        weights: of the block, which says in which precision OpenVINO runs it: ``"keep"``, ``"bf16"`` or ``"int8"``.
        rest: ``"int8"`` where OpenVINO would quantise the block.

    Returns:
        Medians in microseconds: ours, OpenVINO's.
    """
    import openvino

    own = converted(Alone(block), [], inputs, library)
    if rest == "int8":
        own = quantised(own, [rows.numpy() for rows in torch.split(inputs, _CALIBRATION_ROWS)])
    ours = alone(packed, library)
    core = core_with(library)
    feed, hint = inputs.numpy(), precision(weights)
    calls: dict[str, Callable[[Any], Any]] = {}
    for name, model in {"ours": ours, "openvino": own}.items():
        request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint}).create_infer_request()
        request.set_input_tensor(openvino.Tensor(feed, shared_memory=True))
        calls[name] = _call(request)
    times = interleaved(calls, [None], budget_s=0.05, least=_ROUNDS, most=200, warm_up=2)
    return times["ours"].median_us, times["openvino"].median_us


def _call(request: Any) -> Callable[[Any], Any]:
    return lambda _: request.infer()


def alone(packed: PackedOperator, library: Path, *, axes: int = 2) -> Any:
    """An OpenVINO model that is one operator, with an input of this many axes."""
    import openvino
    from openvino import opset13

    x = opset13.parameter([*[-1] * (axes - 1), packed.attributes["d_in"]], openvino.Type.f32)
    return openvino.Model([node_of(packed, x.output(0), library).output(0)], [x])
