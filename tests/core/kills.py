"""Killing what saves, at random moments: ``python -m tests.core.kills [--kills 150]``."""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.core.savers import SAVERS, Other, Saver


def in_a_child(body: Callable[[], object]) -> int:
    """Start a copy of this process that does the body and nothing else; its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell runs in the background
            torch.set_num_threads(1)
            body()
            status = 0
        finally:
            os._exit(status)
    return child


def save_on(saver: Saver, folder: Path, first: int) -> None:
    """Save one content after the other until the end."""
    for number in range(first, 1 << 30):
        saver.save(folder, number % saver.contents)


def kill_once(saver: Saver, folder: Path, last: int, wait_s: float) -> tuple[int, bool]:
    """Kill a loop of savings; the content that the folder then holds, and whether debris shows a saving was cut."""
    child = in_a_child(lambda: save_on(saver, folder, last + 1))
    time.sleep(wait_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    names = [p.name for p in folder.rglob("*") if p.is_file()]
    stems = collections.Counter(n.rpartition("-")[0] for n in names if n.endswith(".safetensors"))
    cut = any(n.endswith(".part") for n in names) or any(count > 1 for count in stems.values())
    return saver.load(folder), cut


def kill(name: str, *, kills: int, seed: int = 0) -> dict[str, int]:
    """How often a folder held the old or a new content after a kill, and how often there was debris of a cut saving.

    Raises:
        Whatever loading raises, or Other: the folder held neither, or an earlier content than before.
    """
    saver, dice = SAVERS[name], random.Random(seed)
    found = {"old": 0, "new": 0, "cut": 0}
    with tempfile.TemporaryDirectory() as place:
        folder, last = Path(place) / "saved", 0
        times = []
        for _ in range(3):  # the first one imports what is imported late
            begin = time.perf_counter()
            saver.save(folder, last)
            times.append(time.perf_counter() - begin)
        for _ in range(kills):
            now, cut = kill_once(saver, folder, last, dice.uniform(0, 5 * min(times)))
            if saver.contents > 2 and now < last:
                raise Other(f"content {now} after {last}")
            found["old" if now == last else "new"] += 1
            found["cut"] += cut
            last = now
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for name in SAVERS:
        found = kill(name, kills=options.kills, seed=options.seed)
        print(f"{name}: {options.kills} kills; {found}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
