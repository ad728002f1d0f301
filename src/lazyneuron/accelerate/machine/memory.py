"""Ask the operating system for large pages under weights that kernels read row by row."""

from __future__ import annotations

import ctypes
import sys

from torch import Tensor

_HUGE_PAGE = 2 << 20
_MADV_HUGEPAGE = 14
_MADV_COLLAPSE = 25  # Linux 6.1 and later


def advise_large_pages(tensor: Tensor) -> bool:
    """Back a CPU tensor's memory with large pages where the system can; its content does not change.

    A certified step reads scattered rows; with 4 KiB pages each row costs page-table walks.

    Returns:
        True when the system took the advice.
    """
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return False
    start = tensor.untyped_storage().data_ptr()
    size = tensor.untyped_storage().nbytes()
    first, last = -(-start // 4096) * 4096, (start + size) // 4096 * 4096
    if last - first < _HUGE_PAGE:
        return False
    madvise = ctypes.CDLL(None).madvise
    region = ctypes.c_void_p(first), ctypes.c_size_t(last - first)
    return bool(madvise(*region, _MADV_HUGEPAGE) == 0 and madvise(*region, _MADV_COLLAPSE) == 0)
