"""Running parts of a model without leaving a trace on it."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.splice.override import Override

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_LARGEST_BUFFER = 2**20  # elements; a larger one (packed quantised weights) is not copied


@contextlib.contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Within this, forwards of the model and its parts leave no trace, also when they end in an exception.

    Evaluation mode; no autograd, autocast, compiled code, warnings or hooks of others; replaced executions are lifted.
    Attributes, registered modules, parameters and buffers, and torch's random state are put back at the end; of buffers
    with more than 2^20 elements only the identity.
    """
    kept = [_State(module) for module in model.modules()]
    try:
        for state in kept:
            state.silence()
        with contextlib.ExitStack() as stack:
            for device in {p.device.type for p in model.parameters()} - {"meta"}:
                stack.enter_context(torch.autocast(device, enabled=False))
            stack.enter_context(torch.random.fork_rng(devices=_cuda_devices(model)))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(torch.no_grad())
            stack.enter_context(_eagerly())
            yield
    finally:
        for state in kept:
            state.put_back()


def hooks_of(module: nn.Module, *, before: bool = True) -> bool:
    """Does the module carry hooks? ``before=False`` leaves out those that are called before its forward.

    A hook that says ``only_in_training = True`` does nothing in evaluation mode and does not count, nor does one that
    says ``known_to_block = True``: whoever executes the block does the same.
    """
    names = _HOOKS if before else [name for name in _HOOKS if name != "_forward_pre_hooks"]
    hooks = [hook for name in names for hook in (module.__dict__.get(name) or {}).values()]
    return any(
        not (getattr(hook, "only_in_training", False) or getattr(hook, "known_to_block", False)) for hook in hooks
    )


def _cuda_devices(model: nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})


def _eagerly() -> contextlib.AbstractContextManager[Any]:
    # nothing is compiled before dynamo is imported, and importing it takes a second
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


@dataclasses.dataclass
class _State:
    """One module as it was."""

    module: nn.Module
    attributes: dict[str, Any] = dataclasses.field(init=False)
    registries: list[tuple[dict[str, Any], dict[str, Any]]] = dataclasses.field(init=False)
    values: list[tuple[Tensor, Tensor]] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        m = self.module
        self.attributes = dict(m.__dict__)
        self.registries = [(r, dict(r)) for r in (m._modules, m._parameters, m._buffers)]
        self.values = [
            (b, b.clone())
            for b in m._buffers.values()
            if b is not None and not b.is_meta and b.numel() <= _LARGEST_BUFFER
        ]

    def silence(self) -> None:
        held = self.module.__dict__
        held["training"] = False
        for name in _HOOKS:
            if held.get(name):
                held[name] = OrderedDict()
        if isinstance(held.get("forward"), Override):
            del held["forward"]

    def put_back(self) -> None:
        for now, then in ((self.module.__dict__, self.attributes), *self.registries):
            if list(now) != list(then) or any(now[k] is not then[k] for k in then):
                now.clear()
                now.update(then)
        for buffer, value in self.values:
            # compared, because batch normalisation writes its statistics without raising their version counter
            if not torch.equal(buffer, value):
                buffer.copy_(value)
