"""What the demo page shows, computed from the demo's record."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.report.charts import scatter
from lazyneuron.report.engine_rows import table
from lazyneuron.report.engines import engine_charts
from lazyneuron.report.numbers import share
from lazyneuron.report.reading import read

LEAD = (
    "A real pretrained transformer, made sparse by training and then executed so that silent neurons are skipped. "
    "Every figure on this page was measured in one run on one machine."
)
LABELS = {
    "original": "original",
    "relu dense": "ReLU, dense",
    "relu compiled": "ReLU, torch.compile",
    "relu int8": "ReLU, dynamic int8",
    "relu accelerated": "ReLU, accelerated",
}


def view(record: Record) -> dict[str, Any]:
    """The variables of the demo page's template.

    Raises:
        DataError: the record is of another kind, or lacks a figure.
    """
    with read(record, "demo") as data:
        density = _density(data["blocks"])
        timing = dict(data.get("timing_s") or {})
        longest = max(timing.values(), default=0.0) or 1.0
        return {
            "title": "Run only the neurons that fire",
            "lead": LEAD,
            "mean_density": density["after"],
            "density": density,
            "quality": {
                k: data["quality"][k] for k in ("mean_cosine", "top1_agreement", "rank_correlation", "n_lines")
            },
            "plots": _frontier(data.get("frontier") or []),
            "states": [_state(k, point) for k, point in enumerate(data.get("frontier") or [], start=1)],
            "notes": list(data.get("notes") or []),
            "cases": [_case(case) for case in data["latency"]],
            "engines": _engines(data.get("engines") or []),
            "engine_plots": engine_charts(data.get("engines") or []),
            "max_abs_difference": data["max_abs_difference"],
            "stages": [{"name": k, "seconds": s, "width": s / longest} for k, s in timing.items()],
            "total_s": sum(timing.values()),
            "settings": [{"setting": k, "value": v} for k, v in (data.get("settings") or {}).items()],
        }


def _density(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [
        {
            "name": b["name"],
            "before": b["density_before"],
            "would": b["would_be_relu"],
            "after": b["density_after"],
            "computed": b.get("computed_share"),
            "total": False,
        }
        for b in blocks
    ]
    total: dict[str, Any] = {"name": "mean of all blocks", "total": True}
    for key in ("before", "would", "after", "computed"):
        values = [row[key] for row in rows]
        total[key] = None if None in values else statistics.fmean(values)
    has_computed = any(row["computed"] is not None for row in rows)
    return {"rows": [*rows, total], "before": total["before"], "after": total["after"], "has_computed": has_computed}


def _frontier(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if len(points) < 2:
        return []
    measures = (
        ("mean_cosine", "mean cosine with the original"),
        ("top1_agreement", "share that keeps its nearest neighbour"),
    )
    return [
        scatter(
            [(p["density"], p[key], str(p["label"])) for p in points],
            title=title[0].upper() + title[1:],
            x_title="density (share of neurons that fire)",
        )
        for key, title in measures
    ]


def _state(number: int, point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "": number,
        "state": point["label"],
        "density": share(point["density"]),
        "cosine": share(point["mean_cosine"]),
        "top-1": share(point["top1_agreement"]),
    }


def _engines(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The table of engines in the order of the chart's numbers, those that did not run after them."""
    shown = [row for row in rows if row["times"]] + [row for row in rows if not row["times"]]
    return [{"": number, **row} for number, row in enumerate(table(shown, in_order=True), start=1)] if rows else []


def _case(case: Mapping[str, Any]) -> dict[str, Any]:
    timed = [row for row in case["rows"] if row.get("median_ms") is not None]
    original = next((row["median_ms"] for row in timed if row["variant"] == "original"), None)
    full = max((max(row["median_ms"], row.get("high_ms") or 0.0) for row in timed), default=1.0)
    ceiling = case.get("ceiling")
    limit = None
    if original is not None and ceiling is not None and math.isfinite(ceiling):
        limit = original / ceiling / full
    return {
        "title": _title(case),
        "speedup": case.get("speedup"),
        "ceiling": ceiling,
        "mlp_share": case.get("mlp_share"),
        "over_dense": case.get("speedup_over_relu_dense"),
        "density_ceiling": case.get("density_ceiling"),
        "limit": limit,
        "rows": [_bar(row, original, full) for row in case["rows"]],
    }


def _title(case: Mapping[str, Any]) -> str:
    """``"1 x 10"`` as "1 x 10 tokens"; a label that is no such product stays as it is."""
    label = str(case["case"])
    if not label.replace(" x ", "").isdigit():
        return label
    return label.replace(" x ", " \u00d7 ") + " tokens"


def _bar(row: Mapping[str, Any], original: float | None, full: float) -> dict[str, Any]:
    median, low, high = row.get("median_ms"), row.get("low_ms"), row.get("high_ms")
    variant = str(row["variant"])
    return {
        "label": LABELS.get(variant, variant),
        "kind": variant.rsplit(" ", 1)[-1] if variant in LABELS else "",
        "median_ms": median,
        "low_ms": low,
        "high_ms": high,
        "n": row.get("n"),
        "note": row.get("note") or "did not run here",
        "width": 0.0 if median is None else median / full,
        "spread": None if low is None or high is None else (low / full, (high - low) / full),
        "gain": original / median if original and median and variant != "original" else None,
    }
