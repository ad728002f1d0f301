"""The verb: train every point that is not done yet, one process for each core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lazyneuron.core.errors import ConfigError
from lazyneuron.experiments.jobs import as_done
from lazyneuron.experiments.sweep.journal import Finished, Journal
from lazyneuron.experiments.sweep.settings import Setting, key_of
from lazyneuron.experiments.sweep.task import Task, check_settings, load_task, try_point


def sweep(
    task: str | Task,
    points: Sequence[Mapping[str, Setting]],
    *,
    file: str | Path,
    processes: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Finished, ...]:
    """Train the points of a sweep.

    Every point that is done is a line of ``file`` at once, so that after Ctrl-C or a kill the same call goes on with
    the points that are missing. A point that fails is noted with its error and tried again by the next call; the others
    go on.

    Args:
        task: ``package.module:callable``, the name of a built-in one, or a function of a module; called with a point's
            settings as keyword arguments, it returns a mapping with ``density`` (a fraction) and ``quality`` (larger
            is better), and perhaps more.
        points: the settings of each, as :func:`grid` makes them.
        file: the file of the sweep, JSON lines; made if it is missing.
        processes: how many at a time, each with one thread; None takes one for each core, 1 trains here.
        advance: told how many of all points are done.

    Returns:
        One entry for each point, in their order.

    Raises:
        ConfigError: there is no such task, it does not take the settings, or the file is of another task.
        DataError: the file is no sweep, cannot be written, or a process was killed.
    """
    name = task if isinstance(task, str) else f"{task.__module__}:{task.__qualname__}"
    function = load_task(task) if isinstance(task, str) else task
    if not points:
        raise ConfigError("A sweep has at least one point; give settings.")
    for point in points:
        check_settings(function, name, point)
    journal = Journal(Path(file), task=name)
    missing = [point for point in points if key_of(point) not in journal.finished]
    found = dict(journal.finished)
    done = len(points) - len(missing)
    advance(done, len(points))
    jobs = [(task, name, point) for point in missing]
    for _, result in as_done(_work, jobs, processes=processes):
        journal.add(result)
        found[key_of(result.settings)] = result
        done += 1
        advance(done, len(points))
    return tuple(found[key_of(point)] for point in points)


def _work(job: tuple[str | Task, str, Mapping[str, Setting]], _: Callable[[float], None]) -> Finished:
    task, name, point = job
    return try_point(load_task(task) if isinstance(task, str) else task, name, point)
