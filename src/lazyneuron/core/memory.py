"""Memory of this process: the most that it had, and large pages under what kernels read row by row."""

from __future__ import annotations

import ctypes
import sys

from torch import Tensor

HUGE_PAGE = 2 << 20
_MADV_HUGEPAGE = 14
_MADV_COLLAPSE = 25  # Linux 6.1 and later


def peak_bytes() -> int | None:
    """The most physical memory that this process had since it started; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def advise_large_pages(tensor: Tensor) -> bool:
    """Back a contiguous CPU tensor's memory with large pages where the system can; its content does not change.

    A certified step reads scattered rows; with 4 KiB pages each row costs page-table walks.

    Returns:
        True when the system took the advice.
    """
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return False
    start = tensor.data_ptr()
    end = start + tensor.numel() * tensor.element_size()
    first, last = -(-start // 4096) * 4096, end // 4096 * 4096
    if last - first < HUGE_PAGE:
        return False
    madvise = ctypes.CDLL(None).madvise
    region = ctypes.c_void_p(first), ctypes.c_size_t(last - first)
    return bool(madvise(*region, _MADV_HUGEPAGE) == 0 and madvise(*region, _MADV_COLLAPSE) == 0)
