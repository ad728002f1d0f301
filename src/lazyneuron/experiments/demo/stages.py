"""The demo's stages: how long each took, and how far the present one is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

#: Told a stage, the share of it that is done, and what was seen.
Show = Callable[[str, float, str], None]


class Stages:
    """Times the stages and passes on how far they are.

    Args:
        show: called with 0 when a stage begins and with 1 when it is over.
    """

    def __init__(self, show: Show = lambda stage, share, note: None) -> None:
        self.seconds: dict[str, float] = {}
        self._show, self._stage = show, ""

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body as one stage; a stage entered again adds up."""
        self._stage = stage
        self._show(stage, 0.0, "")
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
            self._show(stage, 1.0, "")

    def advance(self, share: float, note: str = "") -> None:
        """Pass on how far the present stage is."""
        self._show(self._stage, min(max(share, 0.0), 1.0), note)
