"""What training borrows from a model and gives back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn


@contextlib.contextmanager
def weights_kept_on_failure(model: nn.Module) -> Iterator[None]:
    """Put the model's parameters and buffers back, bitwise, when the body raises; Ctrl-C included."""
    tensors = [*model.parameters(), *model.buffers()]
    kept = [t.detach().clone() for t in tensors]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)
                tensor.grad = None
        raise


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run as in evaluation (no dropout); each module's own mode comes back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def training_only(model: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let only these parameters gather gradients; afterwards each is as it was and holds no gradient of ours."""
    wanted = {id(p) for p in trained}
    before = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    for p, _, _ in before:
        p.requires_grad_(id(p) in wanted)
        p.grad = None
    try:
        yield
    finally:
        for p, required, grad in before:
            p.requires_grad_(required)
            p.grad = grad
