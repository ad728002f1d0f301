"""Borrowing a model: whatever is done with it meanwhile, it is given back as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from lazyneuron.blocks.splice.override import Override
from lazyneuron.blocks.splice.refusal import HOOKS

_LARGEST_BUFFER = 2**20  # elements; a larger one (packed quantised weights, a cache) is copied in training only


@contextlib.contextmanager
def borrowed(
    model: nn.Module,
    *,
    observe: bool = False,
    evaluate: bool = False,
    bare: bool = False,
    trained: Sequence[nn.Parameter] | None = None,
    weights: bool = False,
) -> Iterator[None]:
    """Within this the model may be used as the options say; they are taken back at the end, also after Ctrl-C.

    Args:
        model: the model.
        observe: forwards leave no trace. Autograd is off (``no_grad``, not ``inference_mode``, whose tensors a model
            may keep in a cache and choke on later), compiled code runs eagerly so that hooks are seen, and torch's
            random state and the buffers are put back; of buffers with more than 2^20 elements, if no module is in
            training mode, only the identity.
        evaluate: every module is in evaluation mode.
        bare: both, and the model's own code alone: no autocast, warnings, hooks or replaced executions. Attributes and
            registered modules, parameters and buffers are put back too.
        trained: only these parameters gather gradients, from none; each one's ``requires_grad`` and ``grad`` come back.
        weights: values and gradients of parameters and buffers come back, bitwise, when the body raises.
    """
    with contextlib.ExitStack() as stack:
        if weights:
            stack.enter_context(_restored_on_failure(model))
        if evaluate:
            stack.enter_context(_evaluating(model))
        if trained is not None:
            stack.enter_context(_training_only(model, trained))
        if bare:
            stack.enter_context(_stripped(model))
        if observe or bare:
            stack.enter_context(_traceless(model))
        yield


class RandomState:
    """The states of torch's generators that a model's forward draws from."""

    def __init__(self, model: nn.Module) -> None:
        self._host = torch.get_rng_state()
        devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
        self._devices = {device: torch.cuda.get_rng_state(device) for device in devices}

    def put_back(self) -> None:
        """Make the generators give the same numbers again."""
        torch.set_rng_state(self._host)
        for device, state in self._devices.items():
            torch.cuda.set_rng_state(state, device)


@contextlib.contextmanager
def _traceless(model: nn.Module) -> Iterator[None]:
    copied = any(module.training for module in model.modules())
    buffers = [
        (module, name, b, b.clone() if not b.is_meta and (copied or b.numel() <= _LARGEST_BUFFER) else None)
        for module in model.modules()
        for name, b in module._buffers.items()
        if b is not None
    ]
    random = RandomState(model)
    with torch.no_grad(), _eagerly():
        try:
            yield
        finally:
            random.put_back()
            for module, name, buffer, value in buffers:
                # compared, because batch normalisation writes its statistics without raising their version counter
                if value is not None and not torch.equal(buffer, value):
                    buffer.copy_(value)
                module._buffers[name] = buffer


def _eagerly() -> contextlib.AbstractContextManager[Any]:
    # nothing is compiled before dynamo is imported, and importing it takes a second
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _training_only(model: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    wanted = {id(p) for p in trained}
    before = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    for p, _, _ in before:
        p.requires_grad_(id(p) in wanted)
        p.grad = None
    try:
        yield
    finally:
        for p, required, gradient in before:
            p.requires_grad_(required)
            p.grad = gradient


@contextlib.contextmanager
def _restored_on_failure(model: nn.Module) -> Iterator[None]:
    kept = [(t, t.detach().clone(), t.grad if t.is_leaf else None) for t in (*model.parameters(), *model.buffers())]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, value, gradient in kept:
                tensor.copy_(value)
                if tensor.is_leaf:
                    tensor.grad = gradient
        raise


@contextlib.contextmanager
def _stripped(model: nn.Module) -> Iterator[None]:
    kept = [_Module(module) for module in model.modules()]
    try:
        for one in kept:
            one.strip()
        with contextlib.ExitStack() as stack:
            for device in {p.device.type for p in model.parameters()} - {"meta"}:
                stack.enter_context(torch.autocast(device, enabled=False))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            yield
    finally:
        for one in kept:
            one.put_back()


@dataclasses.dataclass
class _Module:
    """One module as it was."""

    module: nn.Module
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        m = self.module
        self.kept = [(table, dict(table)) for table in (m.__dict__, m._modules, m._parameters, m._buffers)]

    def strip(self) -> None:
        own = self.module.__dict__
        own["training"] = False
        for name in HOOKS:
            if own.get(name):
                own[name] = OrderedDict()
        if isinstance(own.get("forward"), Override):
            del own["forward"]

    def put_back(self) -> None:
        for now, then in self.kept:
            if list(now) != list(then) or any(now[k] is not then[k] for k in then):
                now.clear()
                now.update(then)
