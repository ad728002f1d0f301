"""``python -m tests.accelerate.fuzz --blocks 50000 --seed 0``: a longer fuzz than the tests', with its figures."""

from __future__ import annotations

import sys
import time

from tests.accelerate.fuzz.command import arguments
from tests.accelerate.fuzz.run import Tally, run


def main() -> int:
    """Run, print the figures, and return 1 when anything was wrong."""
    given = arguments("tests.accelerate.fuzz", __doc__)
    began, tally, done = time.perf_counter(), Tally(), 0
    while done < given.blocks:
        many = min(1000, given.blocks - done)
        more = run(given.seed, range(given.first + done, given.first + done + many))
        tally.add(more)
        done += many
        progress = f"{done} blocks, {time.perf_counter() - began:.0f} s, {len(tally.failures)} failures"
        print(*more.failures, progress, sep="\n", file=sys.stderr)
    print(tally.text(seed=given.seed, seconds=time.perf_counter() - began))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
