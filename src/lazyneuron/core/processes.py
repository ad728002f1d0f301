"""New processes of one thread each, for many small jobs at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")


def workers_for(jobs: int, processes: int | None) -> int:
    """How many processes to use: as asked for, or one for each core, and no more than there are jobs."""
    return min(jobs, processes or len(os.sched_getaffinity(0)))


@contextlib.contextmanager
def one_thread_processes(
    workers: int, *, prepare: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes are ended at once when the body raises, Ctrl-C included.

    Args:
        workers: how many processes.
        prepare: called in each with ``arguments`` before its first job; a function of a module.
        arguments: what it is given.
    """
    with ProcessPoolExecutor(workers, mp_context=CONTEXT, initializer=_begin, initargs=(prepare, arguments)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _begin(prepare: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    if prepare is not None:
        prepare(*arguments)
