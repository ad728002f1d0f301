"""Watch the linear layers of a module while a small input runs through it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite
from lazyneuron.core.batch import call_model

_ROWS = 8  # tokens kept of each tensor


@dataclasses.dataclass(frozen=True)
class Call:
    """The first rows that went into and came out of a linear layer in its first call."""

    input: Tensor
    output: Tensor


@dataclasses.dataclass
class Trace:
    """What one forward showed.

    Attributes:
        calls: linear layers that ran, by name, in the order of their first call.
        norms: outputs of normalisations (modules with a vector weight), by name.
        input, output: of the traced module; empty tensors when the whole model was traced.
        alone: True when the module took one tensor and returned one.
    """

    calls: dict[str, Call]
    norms: dict[str, Tensor]
    input: Tensor
    output: Tensor
    alone: bool


@contextlib.contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no autograd, and torch's random state put back at the end, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def trace_locally(module: nn.Module, linears: Mapping[str, LinearSite], width: int) -> Trace | None:
    """Run a module on random tokens of some width.

    Returns:
        The trace, or None when the module cannot be called with one, two or three such tensors.
    """
    first = next(iter(linears.values())).weight
    generator = torch.Generator().manual_seed(7)
    x = (torch.randn(1, 4, width, generator=generator) * 2).to(first.device, first.dtype)
    for arguments in ((x,), (x, x), (x[0],)):
        watch = _Watch(module, linears)
        try:
            with watch:
                output = module(*arguments)
        except Exception:
            continue
        if not watch.calls:
            return None
        alone = len(arguments) == 1 and isinstance(output, Tensor)
        return Trace(watch.calls, watch.norms, _rows(x), _rows(output) if alone else x.new_empty(0), alone)
    return None


def trace_model(model: nn.Module, example: Any, linears: Mapping[str, LinearSite]) -> Trace:
    """Run the whole model on one batch item."""
    watch = _Watch(model, linears)
    with watch:
        call_model(model, example)
    return Trace(watch.calls, watch.norms, torch.empty(0), torch.empty(0), False)


def _rows(t: Tensor) -> Tensor:
    return t.detach().reshape(-1, t.shape[-1])[:_ROWS].clone() if t.ndim else t.detach()


class _Watch:
    """Forward hooks on linears and normalisations, taken off at the end."""

    def __init__(self, module: nn.Module, linears: Mapping[str, LinearSite]) -> None:
        self.calls: dict[str, Call] = {}
        self.norms: dict[str, Tensor] = {}
        self._module = module
        self._linears = linears
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        for name, site in self._linears.items():
            self._handles.append(site.module.register_forward_hook(self._linear(name)))
        for name, module in self._module.named_modules():
            weight = module._parameters.get("weight")
            if weight is not None and weight.ndim == 1:
                self._handles.append(module.register_forward_hook(self._norm(name)))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _linear(self, name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if name not in self.calls and inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                self.calls[name] = Call(_rows(inputs[0]), _rows(output))

        return hook

    def _norm(self, name: str) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                self.norms[name] = _rows(output)

        return hook
