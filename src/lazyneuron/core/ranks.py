"""This process among those that run under torch.distributed; without that, the only one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import torch.distributed as dist

from lazyneuron.core.errors import CheckpointError

T = TypeVar("T")


def is_distributed() -> bool:
    """Has a process group been initialised?"""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if is_distributed() else 0


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if is_distributed() else 1


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if is_distributed():
        dist.barrier()


def gather_from_all(value: T, group: Any = None) -> list[T]:
    """The value of every process, by rank, in every process; of those of a group, where one is given."""
    if not is_distributed():
        return [value]
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, value, group=group)
    return found


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Raise an error that one process meets in the body in every one; nothing in the body may wait for the others.

    Raises:
        CheckpointError: another process met one.
    """
    try:
        yield
    except Exception as error:
        gather_from_all(str(error))
        raise
    problem = next((p for p in gather_from_all("") if p), None)
    if problem is not None:
        raise CheckpointError(problem)
