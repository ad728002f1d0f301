"""What the fuzzes take from the command line, and how a short one ends."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch


class Counted(Protocol):
    """What a fuzz found."""

    failures: list[str]


T = TypeVar("T", bound=Counted)


def arguments(program: str, description: str | None) -> argparse.Namespace:
    """Blocks, seed and number of the first block; from then on one thread."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first block")
    given = parser.parse_args()
    torch.set_num_threads(1)
    return given


def fuzz(given: argparse.Namespace, run: Callable[[int, range], T], said: Callable[[T], str]) -> int:
    """Run, print the figures, and return 1 when anything was wrong."""
    began = time.perf_counter()
    tally = run(given.seed, range(given.first, given.first + given.blocks))
    print(*tally.failures[:40], sep="\n")
    took = f"{time.perf_counter() - began:.0f} s, {len(tally.failures)} failures"
    print(f"seed {given.seed}, {said(tally)}, {took}")
    return 1 if tally.failures else 0
