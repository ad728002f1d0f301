"""Speed and memory of low-degree learning.

Every case runs in a process of its own, so that its peak memory is its own; times are medians of repetitions in that
process, or a single run where one takes seconds, and say which. All data are synthetic and uniform on the cube.
"""

from __future__ import annotations

import functools
import statistics

import numpy as np

from lazyneuron.core.record import Record
from lazyneuron.core.timing import interleaved
from lazyneuron.experiments.bench.correct import refuse_wrong
from lazyneuron.experiments.bench.learn_peers import Row, against, apart, peak_gib, published, rows_of, timed_s
from lazyneuron.experiments.bench.parts import commit_now, commits_of, elsewhere
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.report import markdown_table, provenance

Case = functools.partial[Row]


def transform(n: int, dtype: str) -> Row:
    """In place, against reading and writing the array once (its negation in place), which is the ceiling."""
    import torch

    from lazyneuron.learn import fwht

    x = np.random.default_rng(SEED).standard_normal(2**n).astype(dtype)
    copy = x.copy()
    fwht(copy, in_place=True)
    fwht(copy, in_place=True)
    off = float(np.abs(copy / 2**n - x).max())
    refuse_wrong("The transform", off < (1e-4 if dtype == "float32" else 1e-11))
    calls = {"ceiling": torch.from_numpy(x).neg_, "ours": functools.partial(fwht, x, in_place=True)}

    def shrink(*_: float) -> None:
        np.multiply(x, 2.0 ** (-n // 2), out=x)  # keeps the numbers from growing

    runs = {name: lambda _, call=call: call() for name, call in calls.items()}
    times = interleaved(runs, [None], budget_s=0.0, least=9, most=9, on_round=shrink)
    middle, floor = (times[name].median_us / 1e6 for name in ("ours", "ceiling"))
    return {
        "case": f"transform in place, n = {n}, {dtype}",
        "seconds": middle,
        "ceiling": floor,
        "over the ceiling": middle / floor,
        "samples": [sample_us / 1e6 for sample_us in times["ours"].samples_us],
        "note": "ceiling: the array read and written once",
    }


def fit(n: int, degree: int, m: int, solver: str) -> Row:
    """One fit from int8 rows, data made before the clock starts."""
    from lazyneuron.learn.estimators import LowDegreeRegressor

    x, y = rows_of(m, n)
    before = peak_gib()
    model = LowDegreeRegressor(degree, solver=solver)
    took = timed_s(lambda: model.fit(x, y), repeats=1)
    assert model.coef_ is not None
    error = float(np.abs(model.coef_[[0, 3]] - [1.0, -0.5]).max())
    refuse_wrong("The fit", error < 0.1)
    return {
        "case": f"fit {solver}, n = {n}, degree {degree}, {m} rows, {len(model.coef_)} features",
        "seconds": took[0],
        "peak GiB": peak_gib(),
        "samples": took,
        "note": f"{model.method_}; {before:.2f} GiB before the fit, with the data",
    }


def pairs(m: int, n: int) -> Row:
    """The spectrum from all pairs."""
    from lazyneuron.learn import degree_weights_from_samples

    x, y = rows_of(m, n)
    took = timed_s(lambda: degree_weights_from_samples(x, y, max_degree=4), repeats=3)
    return {
        "case": f"spectrum of all pairs, n = {n}, {m} rows",
        "seconds": statistics.median(took),
        "peak GiB": peak_gib(),
        "samples": took,
        "note": "median of 3",
    }


CASES: tuple[Case, ...] = (
    *(functools.partial(transform, n, dtype) for n in (22, 24, 26) for dtype in ("float64", "float32")),
    functools.partial(fit, 100, 2, 1_000_000, "ols"),
    functools.partial(fit, 50, 3, 200_000, "ols"),
    functools.partial(fit, 50, 3, 100_000, "ridge"),
    functools.partial(pairs, 100_000, 50),
    *(functools.partial(published, n) for n in (10, 14, 18)),
)
RIVALS: tuple[Case, ...] = tuple(
    functools.partial(against, *sizes) for sizes in ((50, 2, 100_000), (30, 3, 10_000), (50, 3, 40_000))
)
_QUICK: tuple[Case, ...] = (functools.partial(transform, 16, "float64"), functools.partial(fit, 20, 2, 5000, "ols"))


def run(request: Request) -> Record:
    """Every case, after those that the record of an interrupted run has."""
    rows: list[Row] = [] if request.begun is None else list(request.begun.data["rows"])
    commits = commits_of(request.begun, [row["case"] for row in rows])
    cases = _QUICK if request.quick else (*CASES, *RIVALS)
    for number, case in list(enumerate(cases))[len(rows) :]:
        request.advance(number / len(cases), f"{number} of {len(cases)} cases done")
        rows.append(case() if case in RIVALS else _row(case))
        commits[rows[-1]["case"]] = commit_now()
        request.keep(_record(rows, commits))
    return _record(rows, commits)


def _row(case: Case) -> Row:
    """A case that fails is a row that says why."""
    try:
        return apart(case)
    except Exception as error:  # a package may be missing, memory may be too small
        return {"case": f"{case.func.__name__}{case.args}", "note": f"failed: {type(error).__name__}: {error}"}


def _record(rows: list[Row], commits: dict[str, str]) -> Record:
    title = "Low-degree learning on synthetic uniform rows"
    return benchmark_record("learn", title=title, rows=list(rows), commits=dict(commits))


def _section(record: Record) -> str:
    columns = [key for row in record.data["rows"] for key in row if key not in ("samples", "note")]
    rows = [{key: row.get(key) for key in dict.fromkeys(columns)} for row in record.data["rows"]]
    notes = "\n".join(f"- {row['case']}: {row['note']}" for row in record.data["rows"])
    measured = f"{provenance(record)} {elsewhere(record, [row['case'] for row in rows])}".rstrip()
    parts = ("### Low-degree learning: speed", markdown_table(rows), notes, measured)
    return "\n" + "\n\n".join(parts) + "\n"


EXPERIMENT = Experiment(
    name="learn",
    title="Speed and memory of low-degree learning",
    run=run,
    kind="benchmark",
    sections={"docs/learn.md": _section},
)
