"""What the operator reads: a block's weights laid out by neuron, and what it has to know of the activation."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
from torch import Tensor

from lazyneuron.ops.sparse_mlp.sketch import Sketch

#: Activation kinds that the kernels evaluate, in the order of csrc/problem.h.
KERNEL_ACTIVATIONS = (
    "relu",
    "squared_relu",
    "jsrelu",
    "fatrelu",
    "thresholded_silu",
    "thresholded_gelu",
    "thresholded_gelu_tanh",
    "offset_gelu",
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_D_IN = 32768


class ZeroSet(Protocol):
    """Where an activation function is exactly 0: ``(-inf, left] U [low, high]``."""

    @property
    def left(self) -> float:
        """End of the first piece."""

    @property
    def low(self) -> float:
        """Begin of the second piece."""

    @property
    def high(self) -> float:
        """End of the second piece."""

    def contains(self, z: Tensor) -> Tensor:
        """Boolean tensor: is each pre-activation in the set?"""

    def holds(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Boolean tensor: does the whole interval lie in one piece?"""


class Function(Protocol):
    """An activation function, known by kind and parameters."""

    @property
    def kind(self) -> str:
        """One of :data:`KERNEL_ACTIVATIONS`."""

    @property
    def parameters(self) -> tuple[float, ...]:
        """The kind's numbers."""

    def __call__(self, z: Tensor) -> Tensor:
        """The function's value at each pre-activation."""

    def compared(self, dtype: torch.dtype) -> Function:
        """The function with the threshold that torch compares with in ``dtype``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedBlock:
    """What the ops read. All rows are contiguous, one row a neuron.

    Attributes:
        sketch: of the layer that decides what fires (``up``, or ``gate`` of a gated block).
        first_rows: that layer's weight, (d_hidden, d_in).
        first_bias: its bias, (d_hidden,) or None.
        up_rows, up_bias: of a gated block's ``up``, else None.
        rectifies_up: whether what ``up`` says is rectified, as in dReLU.
        down_rows: (d_hidden, d_out), the transpose of ``down``'s weight.
        down_bias: (d_out,) or None.
        activation: the block's function.
        zero: its zero set, ends rounded inwards to the dtype.
        added_bytes: memory held beside the model's own parameters.
    """

    sketch: Sketch
    first_rows: Tensor
    first_bias: Tensor | None
    up_rows: Tensor | None
    up_bias: Tensor | None
    rectifies_up: bool = False
    down_rows: Tensor
    down_bias: Tensor | None
    activation: Function
    zero: ZeroSet
    added_bytes: int

    @property
    def dtype(self) -> torch.dtype:
        """The model's dtype: of x, y, biases and kept weights."""
        return self.first_rows.dtype

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.sketch.d_in

    @property
    def d_hidden(self) -> int:
        """Number of neurons."""
        return self.sketch.d_hidden

    @property
    def d_out(self) -> int:
        """Width of the output."""
        return int(self.down_rows.shape[1])

    @property
    def compared(self) -> Function:
        """The function with the thresholds that torch compares with in the model's dtype."""
        return self.activation.compared(self.dtype)

    def with_slack(self, factor: float) -> PackedBlock:
        """The same block with every slack multiplied by ``factor`` (the calibrated mode)."""
        return dataclasses.replace(self, sketch=self.sketch.with_slack(factor))
