"""Whether a quantised block skips rows or reads all of them in order: what takes less time, with the same bits.

Since both ways give the same output, a block tries them on calls that it has to answer anyway.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from torch import Tensor

FIRST_LOOK, LOOK_EVERY = 8, 512  # calls before the first look, and between two
WORTH = 0.6  # share of neurons that fire, below which skipping reads so much less that nothing is tried
TRIALS = 5  # of each way

Run = Callable[[Tensor, bool], Tensor]  # input, every -> output


class Choice:
    """The way of a block for calls with about as many tokens.

    Attributes:
        every: whether all rows are read.
        looked: whether that was decided yet; until then rows are skipped.
        why: one sentence, once it was.
    """

    def __init__(self) -> None:
        self.every, self.looked, self.why = False, False, ""
        self._share = 0.0
        self._left = FIRST_LOOK
        self._times: dict[bool, list[float]] = {False: [], True: []}

    def is_due(self) -> bool:
        """Counts a call; whether it is one to be looked at."""
        self._left -= 1
        return self._left < 0

    @property
    def calls_ahead(self) -> int:
        """How many calls are left before one is to be looked at."""
        return max(self._left, 0)

    def answered(self, calls: int) -> None:
        """Counts calls that were not to be looked at."""
        self._left = max(self._left - calls, 0)

    def look(self, x: Tensor, run: Run, fired: Callable[[], int], pairs: int) -> Tensor:
        """Answer a call in the way that was tried less, and decide when both were tried often enough.

        Args:
            x: the block's input.
            run: the block.
            fired: pairs of tokens and neurons that fired so far, by the count of the calls that skip.
            pairs: of this call, fired or not.

        Returns:
            The block's output.
        """
        every = len(self._times[False]) > len(self._times[True])
        before, began = fired(), time.perf_counter()
        y = run(x, every)
        self._times[every].append(time.perf_counter() - began)
        if not every:
            self._share = (fired() - before) / max(pairs, 1)
            if self._share < WORTH:
                self._decide(False, f"{self._share:.0%} of its neurons fire, and the rows of the others are skipped.")
        elif len(self._times[True]) == TRIALS:
            skipping, reading = (1e6 * statistics.median(self._times[way]) for way in (False, True))
            self._decide(
                reading < skipping,
                f"{self._share:.0%} of its neurons fire: a call took {skipping:.0f} us skipping rows, {reading:.0f} us "
                "reading all of them.",
            )
        return y

    def _decide(self, every: bool, why: str) -> None:
        self.every, self.looked, self.why, self._left = every, True, why, LOOK_EVERY
        self._times = {False: [], True: []}
