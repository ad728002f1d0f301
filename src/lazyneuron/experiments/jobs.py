"""Many independent trainings at once: one process for each core, one thread in each.

The models of the experiments are so small that a second thread gains nothing, a second process a factor of two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from typing import Any, TypeVar

from lazyneuron.core.processes import CONTEXT, one_thread_processes, workers_for

_Result = TypeVar("_Result")
_shares: Any = None  # in a worker: the share done of each job


def _prepare(shares: Any) -> None:
    global _shares  # noqa: PLW0603  # a process pool hands shared memory over in no other way
    _shares = shares


def _work(work: Callable[..., _Result], number: int, job: Any) -> _Result:
    def advance(share: float) -> None:
        _shares[number] = share

    return work(job, advance)


def run_jobs(
    work: Callable[[Any, Callable[[float], None]], _Result],
    jobs: Sequence[Any],
    *,
    advance: Callable[[float, str], None] = lambda share, note: None,
    processes: int | None = None,
) -> list[_Result]:
    """Run ``work(job, advance)`` for every job.

    Args:
        work: a function of a module, so that a new process can import it.
        jobs: what can be pickled.
        advance: told the share of all jobs done, about twice a second.
        processes: how many at a time; None takes one for each core. 1 runs here, without a new process.

    Returns:
        The results in the order of the jobs.
    """
    processes = workers_for(len(jobs), processes)
    if processes <= 1:
        return [
            work(job, lambda share, k=k: advance((k + share) / len(jobs), f"run {k + 1} of {len(jobs)}"))  # type: ignore[misc]
            for k, job in enumerate(jobs)
        ]
    shares = CONTEXT.Array("d", len(jobs))
    with one_thread_processes(processes, prepare=_prepare, arguments=(shares,)) as pool:
        futures = [pool.submit(_work, work, number, job) for number, job in enumerate(jobs)]
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.5)
            for future in done:
                future.result()  # the first error ends all
            finished = sum(f.done() for f in futures)
            advance(sum(shares[:]) / len(jobs), f"{finished} of {len(jobs)} runs done")
        return [future.result() for future in futures]
