"""Modules that hold quantised weights and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lazyneuron.ops.quantised import operators
from lazyneuron.ops.quantised.format import Columns, Format, Rows, blocks, quantise_columns, quantise_rows


class Quantised(nn.Module):
    """A linear layer with quantised weights, for inference: its input gets no gradient.

    Attributes:
        format: of the bytes.
        in_features, out_features: as of the layer that was quantised.
        dtype: of the layer that was quantised, and of its bias.
        rows, scale: the weights.
        bias: (out_features,) or None.
    """

    rows: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, form: Format, sizes: tuple[int, int], dtype: torch.dtype, *, bias: Tensor | None) -> None:
        super().__init__()
        self.format, self.dtype = form, dtype
        self.in_features, self.out_features = sizes
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The shape and dtype of the weights that were quantised; it holds no numbers."""
        return torch.empty(self.out_features, self.in_features, dtype=self.dtype, device="meta")

    @property
    def stored_bytes(self) -> int:
        """Bytes of weights and scales."""
        return sum(t.numel() * t.element_size() for t in (self.rows, self.scale))

    def dequantised(self) -> Tensor:
        """The weights that the bytes mean: (out_features, in_features) float32."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        group = f", groups of {self.format.group}" if self.format.bits == 4 else ""
        return f"{self.in_features}, {self.out_features}, {self.format.name}{group}, bias={self.bias is not None}"


class QuantisedLinear(Quantised):
    """A linear layer whose rows run along the input.

    Args:
        linear: any linear layer with a weight (out_features, in_features).
        form: the format.
        what: its name, for messages.

    Raises:
        ShapeError: groups do not divide in_features.
        AssumptionError: weights that are not finite.
    """

    def __init__(self, linear: nn.Module, form: Format, *, what: str = "A layer") -> None:
        weight, bias = _weights(linear)
        super().__init__(form, (weight.shape[1], weight.shape[0]), weight.dtype, bias=bias)
        made = quantise_rows(weight, form, what=what)
        self.register_buffer("rows", made.bytes)
        self.register_buffer("scale", made.scale)

    @property
    def quantised(self) -> Rows:
        """The weights as the operators take them."""
        return Rows(format=self.format, bytes=self.rows, scale=self.scale, width=self.in_features)

    def dequantised(self) -> Tensor:
        """The weights that the bytes mean: (out_features, in_features) float32."""
        return self.quantised.dequantised()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        form = self.format
        y: Tensor = operators.operators().quantised_linear.default(
            x, self.rows, self.scale, self.bias, form.bits, form.group, -1
        )
        return y


class QuantisedDown(Quantised):
    """The second layer of an MLP block, stored by neuron: rows of neurons that are zero are not read.

    Args:
        linear: any linear layer with a weight (d_out, d_hidden).
        form: the format.
        what: its name, for messages.

    Raises:
        ShapeError: groups do not divide d_out.
        AssumptionError: weights that are not finite.
    """

    def __init__(self, linear: nn.Module, form: Format, *, what: str = "down") -> None:
        weight, bias = _weights(linear)
        super().__init__(form, (weight.shape[1], weight.shape[0]), weight.dtype, bias=bias)
        made = quantise_columns(weight, form, what=what)
        self.register_buffer("rows", made.bytes)
        self.register_buffer("scale", made.scale)

    @property
    def quantised(self) -> Columns:
        """The weights as the operators take them."""
        return Columns(format=self.format, bytes=self.rows, scale=self.scale)

    def dequantised(self) -> Tensor:
        """The weights that the bytes mean: (d_out, d_hidden) float32."""
        return self.quantised.dequantised().t()

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_hidden) to (..., d_out)."""
        form = self.format
        y: Tensor = operators.operators().quantised_down.default(
            x, self.rows, self.scale, self.bias, form.bits, form.group, -1
        )
        return y


def stored_shapes(
    form: Format, sizes: tuple[int, int], *, down: bool
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of ``rows`` and ``scale`` of a layer of these sizes (in_features, out_features)."""
    width, outputs = sizes
    if down:
        if form.bits == 8:
            return {"rows": ((width, outputs), torch.int8), "scale": ((width,), torch.float32)}
        return {
            "rows": ((width, outputs // 2), torch.uint8),
            "scale": ((width, outputs // form.group), torch.bfloat16),
        }
    step = 64 if form.bits == 8 else 128
    padded = -(-width // step) * step
    if form.bits == 8:
        return {"rows": ((outputs, padded), torch.uint8), "scale": ((outputs,), torch.float32)}
    return {
        "rows": ((outputs, padded // 2), torch.uint8),
        "scale": ((outputs, len(blocks(padded, form.group)), 16), torch.bfloat16),
    }


def _weights(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    weight, bias = linear.weight, linear.bias
    assert isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor))
    return weight, bias
