"""``lazyneuron reproduce peng-regime-...``: run what is missing, then make the table of what the folder holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lazyneuron.experiments.experiment import Finding, Request
from lazyneuron.experiments.jobs import run_jobs
from lazyneuron.experiments.reproduce.peng.regime import plan
from lazyneuron.experiments.reproduce.peng.regime.case import Case
from lazyneuron.experiments.reproduce.peng.regime.training import train


def _run(request: Request, *, cases: Callable[[Request], Sequence[Case]]) -> Finding:
    setting, compared = plan.setting_of(request), cases(request)
    stages = plan.stages(compared, setting, request.seeds)
    for number, stage in enumerate(stages):
        run_jobs(
            train, stage, advance=_part(request, number, len(stages)), processes=None if request.device == "cpu" else 1
        )
    raise SystemExit


def _part(request: Request, number: int, count: int) -> Callable[[float, str], None]:
    return lambda share, note: request.advance((number + share) / count, f"part {number + 1} of {count}: {note}")
