"""Memory of this process: its peak, large pages for what stays, no pages for what was only passed by."""

from __future__ import annotations

import ctypes
import sys

from torch import Tensor

HUGE_PAGE = 2 << 20
_MADV_HUGEPAGE = 14
_MADV_PAGEOUT = 21  # Linux 5.4 and later
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
    region = _whole_pages(tensor)
    return region is not None and _advised(region, _MADV_HUGEPAGE) and _advised(region, _MADV_COLLAPSE)


def advise_not_needed(tensor: Tensor) -> bool:
    """Let the system have back the pages of a file in which a CPU tensor lies; its content does not change.

    Pages of a mapped file count as this process's memory until something else wants them; read again, they come back.

    Returns:
        True when the system took the advice.
    """
    region = _whole_pages(tensor) if tensor.is_contiguous() else None
    return region is not None and _advised(region, _MADV_PAGEOUT)


def give_back_freed() -> bool:
    """Let the system have back what was freed and the allocator keeps for later; few milliseconds.

    glibc keeps blocks of up to 32 MB once some of that size were freed, and holes between what stays are not filled by
    larger ones.

    Returns:
        True when there was something.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    return trim is not None and bool(trim(0))


def _whole_pages(tensor: Tensor) -> tuple[int, int] | None:
    """Where the pages that a tensor fills begin, and how long they are; None below a large page."""
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return None
    start = tensor.data_ptr()
    end = start + tensor.numel() * tensor.element_size()
    first, last = -(-start // 4096) * 4096, end // 4096 * 4096
    return (first, last - first) if last - first >= HUGE_PAGE else None


def _advised(region: tuple[int, int], advice: int) -> bool:
    start, size = region
    return bool(ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice) == 0)
