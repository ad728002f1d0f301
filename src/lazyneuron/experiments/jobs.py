"""Many independent jobs at once: one process for each core, one thread in each.

The models of the experiments are so small that a second thread gains nothing, a second process a factor of two.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from lazyneuron.core.errors import DataError
from lazyneuron.core.processes import CONTEXT, one_thread_processes, workers_for
from lazyneuron.core.record import write_text

_Result = TypeVar("_Result")
_Case = TypeVar("_Case")
Work = Callable[[Any, Callable[[float], None]], _Result]
Advance = Callable[[float, str], None]
_shares: Any = None  # in a worker: the share done of each job


def run_jobs(
    work: Work[_Result],
    jobs: Sequence[Any],
    *,
    advance: Advance = lambda share, note: None,
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

    Raises:
        DataError: a process was killed.
    """
    found = dict(as_done(work, jobs, advance=advance, processes=processes))
    return [found[number] for number in range(len(jobs))]


def run_cases(
    work: Work[_Result],
    cases: Sequence[_Case],
    *,
    job: Callable[[_Case, int], Any],
    seeds: int,
    advance: Advance = lambda share, note: None,
    processes: int | None = None,
    folder: Path | None = None,
) -> list[list[_Result]]:
    """Every case with every seed, side by side as :func:`run_jobs` does it.

    Args:
        work, advance, processes: as for :func:`run_jobs`.
        cases: what is compared.
        job: makes the job of a case and a seed.
        seeds: how many, from 0 on.
        folder: keeps each result as JSON under a name made from all of its job, so that an interrupted experiment goes
            on there; None keeps nothing.

    Returns:
        For each case its results, in the order of the seeds.
    """
    jobs = [job(case, seed) for seed in range(seeds) for case in cases]
    if folder is not None:
        work = functools.partial(_through_file, work, folder)
    found = run_jobs(work, jobs, advance=advance, processes=processes)
    return [found[number :: len(cases)] for number in range(len(cases))]


def as_done(
    work: Work[_Result],
    jobs: Sequence[Any],
    *,
    advance: Advance = lambda share, note: None,
    processes: int | None = None,
) -> Iterator[tuple[int, _Result]]:
    """As :func:`run_jobs`, but each result comes with its job's place as soon as it is there."""
    processes = workers_for(len(jobs), processes)
    if processes <= 1:
        for number, job in enumerate(jobs):
            yield number, work(job, _share_of_all(advance, number, len(jobs)))
        return
    shares = CONTEXT.Array("d", len(jobs))
    try:
        with one_thread_processes(processes, prepare=_prepare, arguments=(shares,)) as pool:
            numbers = {pool.submit(_work, work, number, job): number for number, job in enumerate(jobs)}
            pending = set(numbers)
            while pending:
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    yield numbers[future], future.result()  # the first error ends all
                advance(sum(shares[:]) / len(jobs), f"{len(jobs) - len(pending)} of {len(jobs)} runs done")
    except BrokenProcessPool as error:
        raise DataError(
            "A process was killed, perhaps for want of memory; run the same again with fewer processes."
        ) from error


def _through_file(work: Work[_Result], folder: Path, job: Any, advance: Callable[[float], None]) -> _Result:
    """The result that the folder has of this job, or a new one, which it gets."""
    name = hashlib.sha256(pickle.dumps((work, job), protocol=5)).hexdigest()[:24]
    file = folder / f"{name}.json"
    if file.is_file():
        advance(1.0)
        return json.loads(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    found = work(job, advance)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(found))
    return found


def _share_of_all(advance: Advance, number: int, count: int) -> Callable[[float], None]:
    return lambda share: advance((number + share) / count, f"run {number + 1} of {count}")


def _prepare(shares: Any) -> None:
    global _shares  # noqa: PLW0603  # a process pool hands shared memory over in no other way
    _shares = shares


def _work(work: Work[_Result], number: int, job: Any) -> _Result:
    def advance(share: float) -> None:
        _shares[number] = share

    return work(job, advance)
