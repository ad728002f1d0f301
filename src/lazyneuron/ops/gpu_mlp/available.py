"""Where the Triton kernels run: on which devices, and why not on the others."""

from __future__ import annotations

import functools
import importlib.util
import os

import torch

CAPABILITY = (8, 0)  # the first with bfloat16 products


def why_not(device: torch.device) -> str | None:
    """Why the kernels do not run on a device, as a sentence, or None when they do.

    On a CPU they run in Triton's interpreter alone, which is for tests: with ``TRITON_INTERPRET=1`` in the environment
    before triton is imported.
    """
    if device.type not in ("cuda", "cpu"):
        return f"There is no kernel for the device {device.type!r}."
    if device.type == "cpu" and not interprets():
        return "There is no GPU kernel for the device 'cpu' but in Triton's interpreter (TRITON_INTERPRET=1)."
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed, without which no block on a GPU runs sparsely: pip install 'lazyneuron[gpu]'."
    return None if device.type == "cpu" else _why_not_this(device.index or 0)


def interprets() -> bool:
    """Were the kernels imported for Triton's interpreter, or would they be?"""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


@functools.cache
def _why_not_this(index: int) -> str | None:
    if torch.version.hip is not None:
        return "The kernels are written for CUDA devices, and this torch is built for ROCm."
    major, minor = torch.cuda.get_device_capability(index)
    if (major, minor) < CAPABILITY:
        name = torch.cuda.get_device_name(index)
        return f"The kernels need compute capability {CAPABILITY[0]}.{CAPABILITY[1]}, and {name} has {major}.{minor}."
    return None
