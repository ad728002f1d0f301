"""One candidate of a case: built, judged against the dense block in float32, then timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built, Problem
from lazyneuron.experiments.bench.blocks.truth import missed_share, relative_error

LIMITS = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """What can be said of a candidate before it is timed.

    Attributes:
        name: of the baseline, of a certified path, or ``"ours"``.
        run: None when it does not run here, or is wrong.
        reason: then says why.
        error: root mean square of the output's error over that of the output.
        missed: share of firing (token, neuron) pairs left out.
        added_bytes: memory beside the model's own.
        note: chosen settings.
        exact: whether it claims the dense block's output.
    """

    name: str
    run: Callable[[Tensor], Tensor] | None = None
    reason: str | None = None
    error: float | None = None
    missed: float | None = None
    added_bytes: int | None = None
    note: str = ""
    exact: bool = True

    def to_row(self) -> dict[str, Any]:
        """JSON-able, without times."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "run"}
        return {key: value for key, value in row.items() if value not in (None, "")}


def judge(name: str, built: Built, *, x: Tensor, truth: tuple[Tensor, Tensor], limit: float, exact: bool) -> Candidate:
    """Run once and compare; an exact candidate that is off by more than the limit is not timed.

    Args:
        name: of the candidate.
        built: it.
        x: an input of the case.
        truth: output and firing mask of that input, from :func:`lazyneuron.experiments.bench.blocks.truth.evaluate`.
        limit: on the relative error of exact candidates.
        exact: whether the limit applies.
    """
    error = relative_error(built.run(x), truth[0])
    missed = None if built.used is None else missed_share(built.used(x), truth[1])
    wrong = exact and not error <= limit
    return Candidate(
        name=name,
        run=None if wrong else built.run,
        reason=f"Its error {error:.1e} is above {limit:.0e}, so no time is reported." if wrong else None,
        error=error,
        missed=missed,
        added_bytes=built.added_bytes,
        note=built.note,
        exact=exact,
    )


def judge_baseline(
    baseline: Baseline, problem: Problem, *, x: Tensor, truth: tuple[Tensor, Tensor], limit: float
) -> Candidate:
    """Build and judge a baseline; whatever stops it becomes the reason."""
    try:
        built = baseline.build(problem)
        return judge(baseline.name, built, x=x, truth=truth, limit=limit, exact=baseline.exact)
    except Exception as error:  # torch and its compilers raise many kinds, and a row is owed for each
        return Candidate(name=baseline.name, reason=one_line(error), exact=baseline.exact)


def one_line(error: BaseException) -> str:
    """What an error says in one line, with its kind when it is not one of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    # compilers announce the cause in a line that ends with a colon
    text = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])[:300]
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "Out of memory."
    return text if type(error).__module__.startswith("lazyneuron") else f"{type(error).__name__}: {text}"
