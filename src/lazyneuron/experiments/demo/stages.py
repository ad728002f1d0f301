"""The demo's stages: how long each took, and how far the present one is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol


class Watcher(Protocol):
    """Shows progress; the command line draws bars."""

    def begin(self, stage: str) -> None:
        """A stage begins."""
        ...

    def advance(self, share: float, note: str) -> None:
        """A share in [0, 1] of the stage is done; ``note`` may say what was seen."""
        ...

    def end(self, seconds: float) -> None:
        """The stage is over."""
        ...


class Silent:
    """Shows nothing."""

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def advance(self, share: float, note: str) -> None:
        """A share of it is done."""

    def end(self, seconds: float) -> None:
        """It is over."""


class Stages:
    """Times the stages and tells a watcher."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        self.watcher: Watcher = Silent() if watcher is None else watcher
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body as one stage; a stage entered again adds up."""
        self.watcher.begin(stage)
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + took
            self.watcher.end(took)

    def advance(self, share: float, note: str = "") -> None:
        """Pass on how far the present stage is."""
        self.watcher.advance(min(max(share, 0.0), 1.0), note)
