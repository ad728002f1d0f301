"""Advise the operating system on the memory of weights: large pages for those that stay, none for those that go."""

from __future__ import annotations

import ctypes
import sys

from torch import Tensor

_HUGE_PAGE = 2 << 20
_MADV_HUGEPAGE = 14
_MADV_PAGEOUT = 21  # Linux 5.4 and later
_MADV_COLLAPSE = 25  # Linux 6.1 and later


def advise_large_pages(tensor: Tensor) -> bool:
    """Back a CPU tensor's memory with large pages where the system can; its content does not change.

    A certified step reads scattered rows; with 4 KiB pages each row costs page-table walks.

    Returns:
        True when the system took the advice.
    """
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return False
    storage = tensor.untyped_storage()
    region = _whole_pages(storage.data_ptr(), storage.nbytes())
    return region is not None and _advised(region, _MADV_HUGEPAGE) and _advised(region, _MADV_COLLAPSE)


def advise_not_needed(tensor: Tensor) -> bool:
    """Let the system have back the pages of a file in which a CPU tensor lies; its content does not change.

    Pages of a mapped file count as this process's memory until something else wants them; read again, they come back.

    Returns:
        True when the system took the advice.
    """
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return False
    region = _whole_pages(tensor.data_ptr(), tensor.numel() * tensor.element_size())
    return region is not None and _advised(region, _MADV_PAGEOUT)


def _whole_pages(start: int, size: int) -> tuple[int, int] | None:
    """Where the pages that lie wholly in a region begin, and how long they are; None below a large page."""
    first, last = -(-start // 4096) * 4096, (start + size) // 4096 * 4096
    return (first, last - first) if last - first >= _HUGE_PAGE else None


def _advised(region: tuple[int, int], advice: int) -> bool:
    start, size = region
    return bool(ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice) == 0)
