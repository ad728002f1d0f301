"""The folders of checkpoints: which steps are whole, the newest that can be read, and what can go.

A folder is a checkpoint if it holds the document, which is written last and removed first.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lazyneuron.core.errors import MALFORMED, CheckpointError
from lazyneuron.core.ranks import failing_together, gather_from_all
from lazyneuron.core.record import to_disk

DOCUMENT = "checkpoint.json"
MOST_STEPS = 10**10 - 1  # what a folder's name has room for
T = TypeVar("T")
_NAME = re.compile(r"step-\d{10}(\.part)?")  # with .part: left by an earlier version
_OURS = re.compile(r"(shared|(rank|pieces)-\d+)-[0-9a-f]{16}\.safetensors|[\w.-]+\.[0-9a-f]{32}\.part")


def whole_steps(folder: Path) -> list[int]:
    """The steps that there are whole checkpoints of, ascending."""
    return sorted(int(name[5:]) for name in _names(folder) if (folder / name / DOCUMENT).is_file())


def folder_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:010d}"


def read_newest(folder: Path, read: Callable[[Path], T]) -> T | None:
    """The newest checkpoint that every process can read, with a warning if there are newer ones.

    Args:
        folder: of all checkpoints.
        read: reads the folder of one, or raises; it waits for no other process.

    Returns:
        What was read; None if there is none at all, with a warning if something is left of one.

    Raises:
        CheckpointError: there are checkpoints, and none can be read.
    """
    refused = []
    for step in reversed(gather_from_all(whole_steps(folder))[0]):
        path = folder_of(folder, step)
        try:
            with failing_together():
                found = read(path)
        except MALFORMED as error:
            refused.append(str(error) if isinstance(error, CheckpointError) else f"{path} lacks a state: {error}.")
            continue
        if refused:
            warnings.warn(f"The training goes on from {path}, since: {refused[0]}", UserWarning, stacklevel=3)
        return found
    if refused:
        raise CheckpointError(refused[0])
    left = sorted(_names(folder), reverse=True)
    if any((folder / name / "shared.json").is_file() for name in left):
        raise CheckpointError(
            f"The checkpoints in {folder} are those of an earlier version, without checksums, which this one does not "
            "read; resume with that version, or name a new folder."
        )
    if left:
        warnings.warn(
            f"{folder} holds no whole checkpoint, only what an interrupted saving left ({left[0]}); the training "
            "begins at step 0.",
            UserWarning,
            stacklevel=3,
        )
    return None


def clean(folder: Path, *, keep: int | None, saved: int) -> None:
    """Let the oldest checkpoints go, and what interrupted savings left.

    Args:
        folder: of all checkpoints.
        keep: how many stay; None lets all stay that are whole.
        saved: the step that was just written; it stays, since a newer one may be damaged.
    """
    for step in whole_steps(folder)[:-keep] if keep else []:
        if step != saved:
            (folder_of(folder, step) / DOCUMENT).unlink()
            to_disk(folder_of(folder, step))
    for name in _names(folder):
        files = os.listdir(folder / name)
        unfinished = DOCUMENT not in files and (not files or any(map(_OURS.fullmatch, files)))
        if unfinished or name.endswith(".part"):
            shutil.rmtree(folder / name, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    return [n for n in os.listdir(folder) if _NAME.fullmatch(n)] if folder.is_dir() else []
