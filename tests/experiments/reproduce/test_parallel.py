"""Many jobs in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.jobs import run_cases, run_jobs


def square(job: int, advance: Callable[[float], None]) -> tuple[int, int, int]:
    advance(1.0)
    return job * job, os.getpid(), torch.get_num_threads()


def fail(job: int, advance: Callable[[float], None]) -> int:
    if job == 1:
        raise DataError("job 1 has no data.")
    return job


def test_results_come_in_order_from_other_processes_with_one_thread_each() -> None:
    seen: list[float] = []
    found = run_jobs(square, [3, 1, 2], advance=lambda share, note: seen.append(share), processes=2)
    assert [f[0] for f in found] == [9, 1, 4]
    assert os.getpid() not in {f[1] for f in found} and {f[2] for f in found} == {1}
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_one_process_is_this_one() -> None:
    seen: list[tuple[float, str]] = []
    found = run_jobs(square, [3, 1], advance=lambda share, note: seen.append((share, note)), processes=1)
    assert [f[0] for f in found] == [9, 1] and {f[1] for f in found} == {os.getpid()}
    assert seen == [(0.5, "run 1 of 2"), (1.0, "run 2 of 2")]


def test_the_error_of_a_job_ends_all() -> None:
    with pytest.raises(DataError, match="job 1 has no data"):
        run_jobs(fail, [0, 1, 2], processes=2)


def once(job: tuple[Path, str, int], advance: Callable[[float], None]) -> dict[str, float]:
    """Fails where it has been before, and once for case b and seed 1."""
    folder, case, seed = job
    if (case, seed) == ("b", 1) and not (folder / "ready").is_file():
        raise DataError("not ready.")
    (folder / f"{case}{seed}").touch(exist_ok=False)
    return {"found": seed + 0.1}


def test_an_interrupted_experiment_goes_on_where_its_folder_ends(tmp_path: Path) -> None:
    def run(cases: list[str]) -> list[list[dict[str, float]]]:
        return run_cases(
            once,
            cases,
            job=lambda case, seed: (tmp_path, case, seed),
            seeds=2,
            processes=1,
            folder=tmp_path / "kept",
        )

    with pytest.raises(DataError, match="not ready"):
        run(["a", "b"])
    (tmp_path / "ready").touch()
    both = [{"found": 0.1}, {"found": 1.1}]
    assert run(["a", "b"]) == [both, both]
    assert run(["c", "b", "a"]) == [both, both, both]  # the order of cases does not matter, and new ones join
    assert {p.name for p in tmp_path.iterdir()} == {"kept", "ready", "a0", "a1", "b0", "b1", "c0", "c1"}
