"""``python -m tests.accelerate.fuzz --blocks 50000 --seed 0``: a longer fuzz than the tests', with its figures."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from tests.accelerate.fuzz.run import Tally, run


def main() -> int:
    """Run, print the figures, and return 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.accelerate.fuzz", description=__doc__)
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first block")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began, tally, done = time.perf_counter(), Tally(), 0
    while done < arguments.blocks:
        many = min(1000, arguments.blocks - done)
        more = run(arguments.seed, range(arguments.first + done, arguments.first + done + many))
        tally.add(more)
        done += many
        progress = f"{done} blocks, {time.perf_counter() - began:.0f} s, {len(tally.failures)} failures"
        print(*more.failures, progress, sep="\n", file=sys.stderr)
    print(tally.text(seed=arguments.seed, seconds=time.perf_counter() - began))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
