"""What the page of a measured model shows, computed from the measurement's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.report.charts import lines
from lazyneuron.report.numbers import counted, significant
from lazyneuron.report.reading import read


def view(record: Record) -> dict[str, Any]:
    """The variables of the sparsity page's template.

    Raises:
        DataError: the record is of another kind, or lacks a figure.
    """
    with read(record, "measure") as data:
        blocks = data["blocks"]
        ran = [b for b in blocks if b["tokens"]]
        return {
            "title": "How sparsely this model fires",
            "lead": _lead(data, ran),
            "mean_density": data["density"],
            "density_if_relu": _weighted(ran, "density_if_relu"),
            "neurons": sum(b["d_hidden"] for b in ran),
            "dead": sum(b["dead"] for b in ran),
            "always_on": sum(b["always_on"] for b in ran),
            "ceiling": _ceiling(ran),
            "mlp_share": data["mlp_time_share"],
            "rows": [_row(b) for b in blocks],
            "plots": _plots(ran),
            "notes": [
                *data["notes"],
                *(f"{b['name']}: {note}" for b in blocks for note in b["notes"]),
                *(f"{r['name']}: {r['reason']}" for r in data.get("rejected", ())),
            ],
            "settings": dict(data.get("settings") or {}),
        }


def _lead(data: Mapping[str, Any], ran: Sequence[Mapping[str, Any]]) -> str:
    threshold = data["threshold"]
    rule = "Only exact zeros count as silence"
    if threshold is not None:
        rule = f"Activations of at most {significant(threshold)} in magnitude count as silence"
    mode = "training" if data["training"] else "evaluation"
    tokens = max((b["tokens"] for b in ran), default=0)
    seen = f"{counted(len(data['blocks']), 'MLP block')}, observed on up to {counted(tokens, 'token')}"
    seen += f" in {counted(data['batches'], 'batch', 'batches')}"
    return f"{seen} in {mode} mode. {rule}."


def _weighted(ran: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [(b[key], b["tokens"] * b["d_hidden"]) for b in ran if b[key] is not None]
    return sum(v * w for v, w in known) / sum(w for _, w in known) if known else None


def _ceiling(ran: Sequence[Mapping[str, Any]]) -> float | None:
    """Bytes of all blocks' dense steps over those of their better steps, one token."""
    steps = [b["traffic"][0] for b in ran if b["traffic"]]
    least = sum(min(s["dense_bytes"], s["certified_bytes_at_least"]) for s in steps)
    return sum(s["dense_bytes"] for s in steps) / least if steps else None


def _row(block: Mapping[str, Any]) -> dict[str, Any]:
    unions = {u["tokens"]: u["density"] for u in block["unions"]}
    tallest = max(block["rate_histogram"], default=0) or 1
    return {
        **{k: block[k] for k in ("name", "activation", "d_hidden", "tokens", "density", "density_if_relu", "overlap")},
        "dead": block["dead"],
        "always_on": block["always_on"],
        "union_16": unions.get(16),
        "ceiling": block["traffic"][0]["speedup_ceiling_from_bytes"] if block["traffic"] else None,
        "predicted": next((p["speedup"] for p in block["predicted"] if p["tokens"] == 1), None),
        "bars": [count / tallest for count in block["rate_histogram"]],
    }


def _plots(ran: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    series = [(b["name"], [(u["tokens"], u["density"]) for u in b["unions"] if u["density"] is not None]) for b in ran]
    if not any(len(points) > 1 for _, points in series):
        return []
    last = max(len(series) - 1, 1)
    colors = [f"color-mix(in oklab, var(--fire) {100 * k // last}%, var(--base))" for k in range(len(series))]
    title = "Union density over consecutive tokens"
    return [lines(series, title=title, x_title="tokens processed together", colors=colors)]
