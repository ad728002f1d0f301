"""The default grid of ``lazyneuron bench``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lazyneuron.experiments.bench.grid import default_grid, quick_grid
from lazyneuron.experiments.bench.run import run


def main() -> None:
    """Run the grid and write the record; an interrupted run keeps the rows that it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    grid = (quick_grid if options.quick else default_grid)(torch.get_num_threads())

    def watch(done: int, total: int, row: dict[str, object]) -> None:
        print(f"{done}/{total}", {k: v for k, v in row.items() if k not in ("raw_ratios", "candidates")}, flush=True)

    run(grid, path=options.json, watcher=watch)


if __name__ == "__main__":
    main()
