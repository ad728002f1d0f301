"""Models without memory for their weights: built hollow, shown random weights where numbers matter, then filled."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

_PERIOD = (1 << 20) + 7  # random numbers that are repeated; no width divides it
_MOST = 1 << 26  # of larger matrices (vocabularies, which are no part of a block) the rows overlap
_SPREAD = 0.05


@contextlib.contextmanager
def built_hollow() -> Iterator[None]:
    """Within this, modules that this thread makes have parameters on the meta device; buffers hold their numbers.

    So what a model computes into buffers when it is built (rotary frequencies, masks) is there, and no weight is.
    """
    me = threading.get_ident()

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if threading.get_ident() != me or type(parameter) is not nn.Parameter or parameter.is_meta:
            return None
        return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(without_memory)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def to_cpu_(model: nn.Module) -> None:
    """Give parameters on the meta device the CPU as device, still without memory; ties stay ties."""
    made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None and old.is_meta:
                if id(old) not in made:
                    hollow = _hollow(old.shape, old.dtype)
                    made[id(old)] = (old, nn.Parameter(hollow, requires_grad=old.requires_grad))
                module._parameters[name] = made[id(old)][1]


def is_hollow(parameter: Tensor) -> bool:
    """Has it a shape and no memory for it?"""
    return parameter.untyped_storage().nbytes() < parameter.numel() * parameter.element_size()


def empty_(parameter: Tensor, dtype: torch.dtype | None = None) -> None:
    """Give back a parameter's memory; its shape stays, and its dtype unless another is given."""
    parameter.data = _hollow(parameter.shape, dtype or parameter.dtype)


@contextlib.contextmanager
def random_weights(model: nn.Module) -> Iterator[None]:
    """Within this, hollow parameters are views of a few random numbers, so that experiments can tell what is what.

    What is done to the model meanwhile stays; parameters are hollow again afterwards.
    """
    hollow = [p for p in dict.fromkeys(model.parameters()) if is_hollow(p)]
    noise = {dtype: _noise(sizes, dtype) for dtype, sizes in _by_dtype(hollow).items()}
    try:
        for number, parameter in enumerate(hollow):
            parameter.data = _shown(noise[parameter.dtype], parameter, number)
        yield
    finally:
        for parameter in hollow:
            empty_(parameter)


def _hollow(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.zeros(1, dtype=dtype).expand(shape) if len(shape) else torch.zeros((), dtype=dtype)


def _by_dtype(parameters: Iterable[Tensor]) -> dict[torch.dtype, list[int]]:
    sizes: dict[torch.dtype, list[int]] = {}
    for parameter in parameters:
        sizes.setdefault(parameter.dtype, []).append(parameter.numel())
    return sizes


def _noise(sizes: list[int], dtype: torch.dtype) -> Tensor:
    wanted = min(max(sizes), _MOST) + 4096
    some = torch.randn(min(wanted, _PERIOD), generator=torch.Generator().manual_seed(5)).mul_(_SPREAD).to(dtype)
    return some.repeat(-(-wanted // len(some)))


def _shown(noise: Tensor, parameter: Tensor, number: int) -> Tensor:
    """Another part of the noise for each; ones for vectors, most of which are a norm's."""
    if parameter.ndim < 2:
        return torch.ones(parameter.shape, dtype=parameter.dtype)
    start = 97 * number % 4096
    if parameter.numel() <= _MOST:
        return noise[start : start + parameter.numel()].view(parameter.shape)
    rows, width = parameter.shape[0], parameter[0].numel()
    step = max(1, (len(noise) - start - width) // rows)
    return noise.as_strided((rows, width), (step, 1), start).view(parameter.shape)
