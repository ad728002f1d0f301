"""Running a model without leaving a trace on it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def observing(model: nn.Module) -> Iterator[None]:
    """Within this, forwards of ``model`` leave no trace, also when they end in an exception or Ctrl-C.

    Autograd is off (``no_grad``, not ``inference_mode``, whose tensors a model may keep in a cache and choke on later),
    compiled code runs eagerly so that hooks are seen, and torch's random state and the buffers are put back. Of a model
    in evaluation mode only the identity of the buffers is put back: what it writes into one stays, as a copy of all
    buffers could be as large as the model.
    """
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    kept = _buffers(model, copied=any(m.training for m in model.modules()))
    with torch.random.fork_rng(devices=devices), torch.no_grad(), _eagerly():
        try:
            yield
        finally:
            _put_back(kept)


def _eagerly() -> contextlib.AbstractContextManager[Any]:
    # nothing is compiled before dynamo is imported, and importing it takes a second
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


def _buffers(model: nn.Module, *, copied: bool) -> list[tuple[nn.Module, str, Tensor, Tensor]]:
    return [
        (module, name, buffer, buffer.clone() if copied else buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]


def _put_back(kept: list[tuple[nn.Module, str, Tensor, Tensor]]) -> None:
    for module, name, buffer, value in kept:
        # compared, because batch normalisation writes its statistics without raising their version counter
        if buffer is not value and not torch.equal(buffer, value):
            buffer.copy_(value)
        module._buffers[name] = buffer
