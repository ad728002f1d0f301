"""Hash-routed estimators: rows a second, time over buckets, an output layer, and scikit-learn's beside them.

One thread, processor time of the process (waiting for other load does not count), test error on rows that no model saw.
"""

from __future__ import annotations

import functools
import resource
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.correct import needs_kernels
from lazyneuron.experiments.bench.parts import commit_now, commits_of, elsewhere
from lazyneuron.experiments.bench.processor_time import clocked, median_s
from lazyneuron.experiments.bench.route_output import output_layers
from lazyneuron.experiments.bench.route_peers import compare
from lazyneuron.experiments.experiment import Experiment, Request, benchmark_record
from lazyneuron.ops.buckets.operators import native_ops, pack
from lazyneuron.report import markdown_table, provenance
from lazyneuron.route import random_hash
from lazyneuron.route.estimators import LSHRegressor
from lazyneuron.route.table import BucketTable

_ASKED, _ROUNDS = 1 << 19, 15  # rows of a prediction, and how often each number of buckets gets its turn
_TITLES = {
    "speed": "### Rows a second at d = 8, one table",
    "flatness": "### Predict time over buckets (the operator alone, degree 1, buckets asked for at random)",
    "output": "### An output layer of very many classes",
}


def _flatness(largest: int) -> list[dict[str, Any]]:
    """Predict time over the number of buckets, of the operator alone; every row asks for a bucket at random.

    All sizes take turns, so that what slows the machine for a while slows them all. A turn begins with a call that does
    not count, as the caches are full of another size's tags.
    """
    calls = [_predicting(1 << power) for power in range(8, largest + 1, 2)]
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(_ROUNDS):
        for took, call in zip(times, calls, strict=True):
            call()
            took.append(clocked(call)[1])
    found = [statistics.median(took) / _ASKED * 1e9 for took in times]
    return [
        {"buckets": 1 << 8 + 2 * k, "ns a row": ns, "over the smallest": ns / found[0]} for k, ns in enumerate(found)
    ]


def _predicting(buckets: int) -> Callable[[], None]:
    """A call that predicts :data:`_ASKED` rows from so many buckets."""
    ops, g = native_ops(), torch.Generator().manual_seed(0)
    h = random_hash(8, 8, width=1e-4, generator=g, orthogonal=True)
    x = torch.rand(buckets, 8, generator=g) * 2 - 1
    table = BucketTable(8)
    table.reserve(buckets)
    table.add(h.vectors(x))
    assert table.native is not None and len(table) == buckets
    packed = pack(table.native[1], torch.randn(buckets, 9, dtype=torch.float64, generator=g), ops=ops)
    asked = x[torch.randint(0, buckets, (_ASKED,), generator=g)].clone()
    y, slots = torch.empty(_ASKED, 1, dtype=torch.float64), torch.empty(_ASKED, dtype=torch.int64)
    return functools.partial(ops.bucket_predict, asked, h.w, h.b, h.hashes, 0, *packed, 1, 1, y, slots)


def _speed(degree: int, rows: int) -> dict[str, Any]:
    """Rows a second of fit and predict at d = 8, one table, and the peak memory of the process."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (rows, 8)).astype(np.float32)
    y = np.abs(x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * generator.normal(size=rows)
    model, fit_s = clocked(lambda: LSHRegressor(degree=degree).fit(x, y))
    asked = x[: min(rows, 10**6)]
    return {
        "degree": degree,
        "rows": rows,
        "buckets": model.n_buckets_,
        "fit rows/s": rows / fit_s,
        "predict rows/s": len(asked) / median_s(lambda: model.predict(asked), rounds=5),
        "peak GiB, data included": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def run(request: Request) -> Record:
    """All parts, but for those that the record of an earlier run has; each says at which commit it was measured.

    Raises:
        ImplUnavailable: the native kernels are not built.
    """
    needs_kernels()
    quick, begun = request.quick, request.begun
    data: dict[str, Any] = {} if begun is None else dict(begun.data)
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "speed": lambda: [
            _speed(degree, 10**5 if quick else 10**7) for degree in (0, 1)
        ],  # first, as it reads the process's peak
        "flatness": lambda: _flatness(12 if quick else 22),
        "output": lambda: output_layers(2000 if quick else 100_000, 20 if quick else 800),
        "compare": lambda: compare(3000 if quick else 1_020_000, lambda note: request.advance(0.75, note)),
    }
    data["commits"] = commits_of(begun, [name for name in parts if name in data])
    data["title"] = "Hash-routed estimators, one thread" + (", quick" if quick else "")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, (name, measure) in enumerate(parts.items()):
            if name not in data:
                request.advance(number / len(parts), name)
                data[name] = measure()
                data["commits"][name] = commit_now()
                request.keep(benchmark_record("route", **data))
        return benchmark_record("route", **data)
    finally:
        torch.set_num_threads(threads)


def _section(record: Record) -> str:
    data = record.data
    measured = f"{provenance(record)} {elsewhere(record, data['commits'])}".rstrip()
    parts = [f"**{data['title']}**", measured]
    for name, title in _TITLES.items():
        if data.get(name):
            parts += [title, markdown_table(data[name])]
    for name in dict.fromkeys(row["data"] for row in data.get("compare", ())):
        rows = [{k: v for k, v in row.items() if k != "data"} for row in data["compare"] if row["data"] == name]
        parts += [f"### {name}", markdown_table(rows)]
    return "\n\n".join(parts) + "\n"


EXPERIMENT = Experiment(
    name="route",
    title="Hash-routed estimators beside scikit-learn's",
    run=run,
    kind="benchmark",
    sections={"docs/route.md": _section},
)
