"""Modules that hold quantised weights and nothing else."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.core.state import in_one_piece
from lazyneuron.ops.gpu_mlp import operators as gpu
from lazyneuron.ops.quantised import operators
from lazyneuron.ops.quantised.format import Columns, Format, Rows, blocks
from lazyneuron.ops.quantised.layout import laid_out, zeros
from lazyneuron.ops.quantised.quantise import quantise_columns, quantise_rows

DEVICES = ("cpu", "cuda")


def elsewhere(device: torch.device) -> str:
    """Why quantised weights are not executed on a device of another kind."""
    return f"Quantised weights run on CPUs and CUDA devices, and these are on {device}; move the model to one of them."


def _refuse(x: Tensor, rows: Tensor, *others: object) -> Tensor:
    raise ImplUnavailable(elsewhere(rows.device))


class Quantised(nn.Module):
    """A linear layer with quantised weights, for inference.

    Args:
        weight: (out_features, in_features), of any floating dtype.
        bias: (out_features,) or None; kept as it is.
        form: the format.
        what: its name, for messages.

    Attributes:
        format: of the bytes.
        in_features, out_features: as of the layer that was quantised.
        dtype: of the layer that was quantised, and of its bias.
        rows, scale: the weights, as :mod:`lazyneuron.ops.quantised.format` lays them out.
        bias: (out_features,) or None.

    Raises:
        ShapeError: groups do not divide the rows.
        AssumptionError: weights that are not finite.
    """

    rows: Tensor
    scale: Tensor
    bias: Tensor | None
    _gpu_name: str  # of the operator on a GPU

    def __init__(self, weight: Tensor, bias: Tensor | None, form: Format, *, what: str = "A layer") -> None:
        super().__init__()
        self.format, self.dtype = form, weight.dtype
        self.out_features, self.in_features = weight.shape
        rows, scale = (t.to(weight.device) for t in laid_out(*self._quantise(weight.cpu(), what)))
        for name, tensor in (("rows", rows), ("scale", scale), ("bias", None if bias is None else bias.detach())):
            self.register_buffer(name, tensor)
        self._bind()

    @classmethod
    def empty(cls, sizes: tuple[int, int], dtype: torch.dtype, form: Format, *, bias: bool) -> Self:
        """A layer of these sizes (in_features, out_features) whose weights are zero until they are loaded."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.format, layer.dtype = form, dtype
        layer.in_features, layer.out_features = sizes
        stored = layer.stored_shapes()
        for name, tensor in zip(("rows", "scale"), zeros(stored["rows"], stored["scale"]), strict=True):
            layer.register_buffer(name, tensor)
        layer.register_buffer("bias", torch.zeros(sizes[1], dtype=dtype) if bias else None)
        layer._bind()
        return layer

    @property
    def weight(self) -> Tensor:
        """The shape and dtype of the weights that were quantised; it holds no numbers."""
        return torch.empty(self.out_features, self.in_features, dtype=self.dtype, device="meta")

    @property
    def stored_bytes(self) -> int:
        """Bytes of weights and scales."""
        return sum(t.numel() * t.element_size() for t in (self.rows, self.scale))

    def _bind(self) -> None:
        """Look the operators up once, so that compilers see them and nothing around them."""
        known = self.rows.is_meta or self.rows.device.type in DEVICES
        self._call = self._operator() if known else _refuse
        self._call_on_gpu = gpu.op(self._gpu_name) if self.rows.is_cuda else None

    @abc.abstractmethod
    def _operator(self) -> Callable[..., Tensor]:
        """What multiplies on a CPU."""

    @abc.abstractmethod
    def _quantise(self, weight: Tensor, what: str) -> tuple[Tensor, Tensor]:
        """Rows and scales."""

    @abc.abstractmethod
    def stored_shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of ``rows`` and ``scale``."""

    @abc.abstractmethod
    def dequantised(self) -> Tensor:
        """The weights that the bytes mean: (out_features, in_features) float32."""

    def __getstate__(self) -> dict[str, Any]:
        state = {
            key: value for key, value in self.__dict__.items() if not key.startswith("_call")
        }  # operators cannot be pickled
        state["_buffers"] = {key: t if t is None else in_one_piece(t) for key, t in self._buffers.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._bind()
        if self.rows.device.type == "cpu":
            self._buffers["rows"], self._buffers["scale"] = laid_out(self.rows, self.scale)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[no-untyped-call]
        for name in ("rows", "scale"):
            destination[prefix + name] = in_one_piece(destination[prefix + name])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the bytes to devices; a change of dtype reaches the bias alone."""
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.scale.dtype != scale.dtype:
            self._buffers["scale"] = scale
        if self.bias is not None:
            self.dtype = self.bias.dtype
        self._bind()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        if self._call_on_gpu is not None:
            return self._call_on_gpu(x, self.rows, self.scale, self.bias, self.format.bits, self.format.group)
        return self._call(x, self.rows, self.scale, self.bias, self.format.bits, self.format.group, -1)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        group = f", groups of {self.format.group}" if self.format.bits == 4 else ""
        return f"{self.in_features}, {self.out_features}, {self.format.name}{group}, bias={self.bias is not None}"


class QuantisedLinear(Quantised):
    """A linear layer whose rows run along the input."""

    _gpu_name = "linear"

    def _operator(self) -> Callable[..., Tensor]:
        call: Callable[..., Tensor] = operators.operators().quantised_linear.default
        return call

    def _quantise(self, weight: Tensor, what: str) -> tuple[Tensor, Tensor]:
        made = quantise_rows(weight, self.format, what=what)
        return made.bytes, made.scale

    def stored_shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of ``rows`` and ``scale``."""
        form, outputs = self.format, self.out_features
        step = 64 if form.bits == 8 else 128
        padded = -(-self.in_features // step) * step
        if form.bits == 8:
            return {"rows": ((outputs, padded), torch.uint8), "scale": ((outputs,), torch.float32)}
        scales = (outputs, len(blocks(padded, form.group)), 16)
        return {"rows": ((outputs, padded // 2), torch.uint8), "scale": (scales, torch.bfloat16)}

    @property
    def quantised(self) -> Rows:
        """The weights as the operators take them."""
        return Rows(format=self.format, bytes=self.rows, scale=self.scale, width=self.in_features)

    def dequantised(self) -> Tensor:
        """The weights that the bytes mean: (out_features, in_features) float32."""
        return self.quantised.dequantised()


class QuantisedDown(Quantised):
    """The second layer of an MLP block, stored by neuron: rows of neurons that are zero are not read."""

    _gpu_name = "down"

    def _operator(self) -> Callable[..., Tensor]:
        call: Callable[..., Tensor] = operators.operators().quantised_down.default
        return call

    def _quantise(self, weight: Tensor, what: str) -> tuple[Tensor, Tensor]:
        made = quantise_columns(weight, self.format, what=what)
        return made.bytes, made.scale

    def stored_shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of ``rows`` and ``scale``."""
        form, width, outputs = self.format, self.in_features, self.out_features
        if form.bits == 8:
            return {"rows": ((width, outputs), torch.int8), "scale": ((width,), torch.float32)}
        scales = (width, outputs // form.group)
        return {"rows": ((width, outputs // 2), torch.uint8), "scale": (scales, torch.bfloat16)}

    @property
    def quantised(self) -> Columns:
        """The weights as the operators take them."""
        return Columns(format=self.format, bytes=self.rows, scale=self.scale)

    def dequantised(self) -> Tensor:
        """The weights that the bytes mean: (d_out, d_hidden) float32."""
        return self.quantised.dequantised().t()
