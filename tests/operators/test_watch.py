"""A watch sees every change of what it was told to look at, in Python and by native code."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lazyneuron.core.watch import Watch
from lazyneuron.ops.native import watching
from tests.kernels import needs_kernels

WAYS = [lambda watch: watch.look, watching.looking]


def watched() -> tuple[Watch, nn.Module]:
    """All kinds of conditions on a module."""
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    layer, watch = module[0], Watch()
    watch.attribute(layer, "training")
    watch.attribute(layer, "forward")  # not there
    watch.held(module, "_modules", "1")
    watch.entry(layer._parameters, "other")  # not there
    watch.sizes(layer, "_forward_hooks", "_forward_pre_hooks")
    watch.type_of(layer)
    watch.taken(layer, "_parameters", "weight")
    assert watch.taken_if_there(layer, "_parameters", "bias")
    watch.taken(layer, "_parameters", "weight")  # as often as it is asked for
    return watch, module


def _set(name: str, value: Any) -> Callable[[nn.Module], None]:
    return lambda module: setattr(module[0], name, value)


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "mode": _set("training", False),
    "forward": _set("forward", lambda x: x),
    "module": lambda m: m.__setitem__(1, nn.BatchNorm1d(4)),
    "module gone": lambda m: m._modules.pop("1"),
    "dict of modules": lambda m: m.__dict__.__setitem__("_modules", dict(m._modules)),
    "parameter": _set("weight", nn.Parameter(torch.zeros(4, 3))),
    "parameter gone": lambda m: m[0].__delattr__("bias"),
    "parameter none": _set("bias", None),
    "new parameter": _set("other", nn.Parameter(torch.zeros(1))),
    "hook": lambda m: m[0].register_forward_hook(lambda *_: None),
    "first hook": lambda m: m[0].register_forward_pre_hook(lambda *_: None),
    "dict of hooks": lambda m: m[0].__dict__.__setitem__("_forward_hooks", {}),
    "class": _set("__class__", type("Other", (nn.Linear,), {})),
    "whole dict": lambda m: m[0].__dict__.clear(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(change: str, way: Callable[[Watch], watching.Look]) -> None:
    watch, module = watched()
    look = way(watch)
    taken = look()
    assert taken is not None and len(taken) == 3
    assert taken[0] is taken[2] is module[0].weight and taken[1] is module[0].bias
    assert look() is not None  # looking changes nothing
    CHANGES[change](module)
    assert look() is None


@pytest.mark.parametrize("way", WAYS)
def test_a_watch_keeps_no_tensor_alive(way: Callable[[Watch], watching.Look]) -> None:
    watch, module = watched()
    look = way(watch)
    held = weakref.ref(module[0].weight)
    taken = look()
    assert taken is not None
    module[0].weight = None
    del taken
    gc.collect()
    assert held() is None and look() is None


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_watched_may_change(way: Callable[[Watch], watching.Look]) -> None:
    watch, module = watched()
    look = way(watch)
    module[1].training, module[0].note = False, "new"
    with torch.no_grad():
        module[0].weight.data.zero_()
    taken = look()
    assert taken is not None and not taken[0].any()


@needs_kernels
def test_native_code_looks_where_there_are_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, _ = watched()
    assert watching.looking(watch) != watch.look
    monkeypatch.setattr(watching, "_native", lambda: None)
    assert watching.looking(watch) == watch.look


def test_references_are_neither_lost_nor_gained() -> None:
    import sys

    watch, module = watched()
    look, weight = watching.looking(watch), module[0].weight
    before = sys.getrefcount(weight), sys.getrefcount(module[0].__dict__), sys.getrefcount(type(module[0]))
    for _ in range(1000):
        assert look() is not None
    module[0].training = False
    for _ in range(1000):
        assert look() is None
    assert (sys.getrefcount(weight), sys.getrefcount(module[0].__dict__), sys.getrefcount(type(module[0]))) == before
