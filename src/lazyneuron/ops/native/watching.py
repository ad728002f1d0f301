"""A watch over Python's objects, looked at by native code."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.core.watch import ABSENT, Kind, Watch
from lazyneuron.ops.native.load import library

Look = Callable[[], "list[Any] | None"]
_CALLS = (  # of Python's stable ABI, in the order of csrc/watch_bindings.h
    "PyObject_GenericGetDict", "PyDict_GetItem", "PyDict_Size", "PyObject_Type", "PyList_SetItem", "Py_IncRef",
    "Py_DecRef",
)  # fmt: skip


class _Condition(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int64), ("owner", ctypes.c_void_p), ("key", ctypes.c_void_p), ("value", ctypes.c_int64),
        ("near", ctypes.c_void_p),
    )  # fmt: skip


def looking(watch: Watch) -> Look:
    """``watch.look``, by native code where this is CPython with its lock, and as the watch stands now.

    It takes some microseconds for a thousand conditions whose objects are in the caches, and a tenth of the time of
    ``watch.look`` where they are not.
    """
    native = _native()
    if native is None:
        return watch.look
    call, calls = native
    held = (_Condition * len(watch.conditions))()
    kept = tuple(watch.conditions)  # owners, keys and values stay where they are
    for place, (kind, owner, key, value) in zip(held, kept, strict=True):
        place.kind, place.owner = int(kind), id(owner)
        place.key = None if key is None else id(key)
        place.near = id(vars(owner)) if kind is Kind.ATTRIBUTE else id(owner)
        place.value = value if kind in (Kind.SIZE, Kind.TAKEN) else 0 if value is ABSENT else id(value)
    number, taken = len(kept), sum(condition.kind is Kind.TAKEN for condition in kept)
    at = ctypes.addressof(held)

    def look(_alive: object = (held, kept)) -> list[Any] | None:
        out = [None] * taken
        return out if call(calls, at, number, out) else None

    return look


@functools.cache
def _native() -> tuple[Callable[..., int], int] | None:
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        call = ctypes.PyDLL(str(library())).lazyneuron_look
    except (ImplUnavailable, OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.py_object]
    call.restype = ctypes.c_int64
    calls = (ctypes.c_void_p * len(_CALLS))(
        *(ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value for name in _CALLS)
    )
    call.calls = calls  # type: ignore[attr-defined]
    return call, ctypes.addressof(calls)
