"""What the page of a measured model shows, computed from the measurement's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.report.charts import lines
from lazyneuron.report.numbers import counted, ratio, share, significant
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
            "rows": [{key: b[key] for key in ("name", "density", "density_if_relu")} for b in blocks],
            "table": [_row(b) for b in blocks],
            "plots": _plots(ran),
            "notes": [
                *data["notes"],
                *(f"{b['name']}: {note}" for b in blocks for note in b["notes"]),
                *(f"{r['name']}: {r['reason']}" for r in data.get("rejected", ())),
            ],
            "settings": [{"setting": k, "value": v} for k, v in (data.get("settings") or {}).items()],
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
    row = {
        "block": block["name"],
        "activation": block["activation"],
        "neurons": block["d_hidden"],
        "tokens": block["tokens"],
        "firing rates": _spark(block["rate_histogram"]),
        "dead": block["dead"],
        "always on": block["always_on"],
        "union of 16": share(unions.get(16)),
        "overlap": share(block["overlap"]),
        "byte ceiling": ratio(block["traffic"][0]["speedup_ceiling_from_bytes"] if block["traffic"] else None),
    }
    alone = [p["speedup"] for p in block["predicted"] if p["tokens"] == 1]
    return row | ({"predicted": ratio(alone[0])} if alone else {})


def _spark(counts: Sequence[int]) -> Any:
    """The counts as bars of a line's height."""
    from markupsafe import Markup

    tallest = max(counts, default=0) or 1
    heights = (0 if count == 0 else 5 + 95 * count / tallest for count in counts)
    bars = "".join(f'<i style="height:{height:.0f}%"></i>' for height in heights)
    return Markup(f'<span class="spark" role="img" aria-label="firing rates">{bars}</span>')


def _plots(ran: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    series = [(b["name"], [(u["tokens"], u["density"]) for u in b["unions"] if u["density"] is not None]) for b in ran]
    if not any(len(points) > 1 for _, points in series):
        return []
    title = "Union density over consecutive tokens"
    return [lines(series, title=title, x_title="tokens processed together")]
