"""How fast this machine reads memory at the moment: what a token's bytes are divided by."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from lazyneuron.core.memory import advise_large_pages
from lazyneuron.core.timing import timed

_BYTES = 256 * 2**20


class Reading:
    """Plain reads of a large buffer, by several means; the fastest one counts.

    The C library's searches run in a thread each; a sum by torch alone understates the bandwidth.

    Args:
        threads: at a time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._buffer = torch.empty(_BYTES, dtype=torch.uint8)
        advise_large_pages(self._buffer)
        self._buffer.fill_(1)
        self._pool = ThreadPoolExecutor(threads)
        self._library = _c_library()

    def gbps(self) -> float:
        """10^9 bytes a second, by the fastest of the means."""
        took = [timed(torch.Tensor.sum, self._buffer.view(torch.int64))[1]]
        if self._library is not None:
            took += [timed(self._in_threads, read)[1] for read in (self._search, self._compare)]
        return _BYTES / min(took) / 1e3

    def _in_threads(self, read: Callable[[int], None]) -> list[None]:
        return list(self._pool.map(read, range(self._threads)))

    def _search(self, number: int) -> None:
        start, size = self._part(number)
        assert self._library is not None
        if self._library.memchr(start, 0, size):
            raise AssertionError("there is no zero in the buffer")

    def _compare(self, number: int) -> None:
        start, size = self._part(number)
        assert self._library is not None
        if self._library.memcmp(start, start + size // 2, size // 2):
            raise AssertionError("all of the buffer is the same")

    def _part(self, number: int) -> tuple[int, int]:
        size = _BYTES // self._threads // 4096 * 4096
        return self._buffer.data_ptr() + number * size, size


def _c_library() -> ctypes.CDLL | None:
    """The C library with its two searches, or None where it cannot be called."""
    try:
        library = ctypes.CDLL(None)
        library.memchr.argtypes, library.memchr.restype = (
            [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t],
            ctypes.c_void_p,
        )
        library.memcmp.argtypes, library.memcmp.restype = (
            [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t],
            ctypes.c_int,
        )
    except (OSError, TypeError, AttributeError):
        return None
    return library
