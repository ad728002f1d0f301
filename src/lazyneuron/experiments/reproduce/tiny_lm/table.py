"""The table, the curves and the sentence, from what was found on each model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.experiments.reproduce.tiny_lm.quality import FORMATS
from lazyneuron.experiments.reproduce.tiny_lm.training import Job

Found = Mapping[str, Any]


def rows(jobs: Sequence[Job], found: Sequence[Found], speeds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each model and format, then one for each threshold; means over seeds, tokens/s of the first."""
    table = []
    for name, group in _by_name(jobs, found).items():
        density = statistics.mean(one[FORMATS[0].name]["density"] for one in group)
        kept = _mean(_of(group, FORMATS[0].name), "perplexity") or 0.0
        for form in (form for form in FORMATS if form.name in group[0]):
            parts = _of(group, form.name)
            speed = speeds.get(name, {}).get(form.name, {})
            table.append(
                {
                    "model": name,
                    "weights": form.name,
                    "density": density,
                    "perplexity": _digits(_mean(parts, "perplexity")),
                    "against fp32": _more(_mean(parts, "perplexity"), kept),
                    "run sparsely": _digits(_mean(parts, "perplexity_sparse")),
                    "new packages": _digits(_mean(parts, "perplexity_packages")),
                    "same token as dense": _agreement(parts, "sparse_as_dense"),
                    "same token as fp32": _agreement(parts, "as_fp32"),
                    "tokens/s dense": speed.get("dense"),
                    "tokens/s sparse": speed.get("sparse"),
                }
            )
        for part in (key for key in group[0] if key.startswith("threshold")):
            cut = [one[part] for one in group]
            table.append(
                {
                    "model": f"{name}, cut to {part.split()[1]}",
                    "weights": "fp32",
                    "density": statistics.mean(one["density"] for one in cut),
                    "perplexity": _digits(_mean(cut, "perplexity")),
                    "against fp32": _more(_mean(cut, "perplexity"), kept),
                }
            )
    return [{key: value for key, value in row.items() if value is not None} for row in table]


def _by_name(jobs: Sequence[Job], found: Sequence[Found]) -> dict[str, list[Found]]:
    groups: dict[str, list[Found]] = {}
    for job, one in zip(jobs, found, strict=True):
        groups.setdefault(job.name, []).append(one)
    return groups


def _mean(parts: Sequence[Found], key: str) -> float | None:
    values = [part[key] for part in parts if key in part]
    return statistics.mean(values) if values else None


def _digits(value: float | None) -> str | None:
    """Enough digits for what quantisation changes."""
    return None if value is None else f"{value:.3f}"


def _more(value: float | None, before: float) -> str | None:
    return None if value is None else f"{value / before - 1:+.2%}"


def _agreement(parts: Sequence[Found], key: str) -> str | None:
    """``same of all (ties)`` over seeds."""
    counted = [part[key] for part in parts if key in part]
    if not counted:
        return None
    tokens, same, ties = (sum(one[k] for one in counted) for k in ("tokens", "same", "ties"))
    return f"{same} of {tokens}" + (f", {ties} ties" if same < tokens else "")


def curves(jobs: Sequence[Job], found: Sequence[Found]) -> list[dict[str, Any]]:
    """Perplexity against density: each model by itself, and the line that thresholds draw."""
    drawn = []
    for name, group in _by_name(jobs, found).items():
        points = [(_mean(_of(group, FORMATS[0].name), k)) for k in ("density", "perplexity")]
        thresholds = [key for key in group[0] if key.startswith("threshold")]
        cut = [[_mean(_of(group, key), k) for k in ("density", "perplexity")] for key in thresholds]
        line = [points, *cut]
        label = f"{name}, thresholds" if cut else name
        drawn.append({"label": label, "x": [p[0] for p in line], "y": [p[1] for p in line]})
    return drawn


def _of(group: Sequence[Found], part: str) -> list[Found]:
    return [one[part] for one in group]


def sentence(jobs: Sequence[Job], found: Sequence[Found]) -> str:
    """What sparsity cost or won, and what quantisation cost."""
    by_name = _by_name(jobs, found)
    (sparse, dense, *plain), first = list(by_name), FORMATS[0].name
    a, b = (_mean(_of(by_name[name], first), "perplexity") or 0.0 for name in (sparse, dense))
    density = _mean(_of(by_name[sparse], first), "density") or 0.0
    word = "more" if a > b else "less"
    quantised = "; ".join(
        f"{form.name} {(_mean(_of(by_name[sparse], form.name), 'perplexity') or 0.0) / a - 1:+.2%}"
        for form in FORMATS[2:]
        if form.name in by_name[sparse][0]
    )
    cut = next((key for key in by_name[dense][0] if key == "threshold 0.3"), None)
    thresholds = ""
    if cut is not None:
        c = _mean(_of(by_name[dense], cut), "perplexity") or 0.0
        thresholds = f" Thresholds cut the SiLU model to density 0.3 without training, at perplexity {c:.2f}."
    alone = ""
    if plain:
        p, d = (_mean(_of(by_name[plain[0]], first), key) or 0.0 for key in ("perplexity", "density"))
        alone = f" A ReLU model trained on the loss alone fires {d:.3f} at perplexity {p:.2f}."
    return (
        f"The ReLU model trained under pressure fires {density:.3f} of its neurons at perplexity {a:.2f}, "
        f"{abs(a / b - 1):.1%} {word} than the SiLU model's {b:.2f}, after as many steps "
        f"({_difference(by_name[sparse], by_name[dense])}).{alone}{thresholds} "
        f"{_runs(len(by_name[sparse]))} "
        f"Quantisation adds to the ReLU model's perplexity: {quantised}."
    )


def _difference(group: Sequence[Found], other: Sequence[Found]) -> str:
    """Of two models' losses on the same windows, with the standard error over windows."""
    pairs = [
        a - b
        for one, two in zip(_of(group, FORMATS[0].name), _of(other, FORMATS[0].name), strict=True)
        for a, b in zip(one["losses"], two["losses"], strict=True)
    ]
    error = statistics.stdev(pairs) / math.sqrt(len(pairs))
    return f"{statistics.mean(pairs):+.4f} nats a token, standard error {error:.4f} over windows"


def _runs(seeds: int) -> str:
    return "One seed each." if seeds == 1 else f"Means of {seeds} seeds each."


def summary(history: Sequence[Mapping[str, float]], job: Job) -> dict[str, Any]:
    """The training as it stands in the record: its time, and means over twenty parts of it."""
    share = max(1, len(history) // 20)
    parts = [history[k : k + share] for k in range(0, len(history), share)]
    tokens = job.schedule.batch * job.size.context
    return {
        "steps": len(history),
        "tokens": len(history) * tokens,
        "processor_minutes": sum(row["processor_s"] for row in history) / 60,
        "median_step_processor_s": statistics.median(row["processor_s"] for row in history),
        "median_step_wall_s": statistics.median(row["wall_s"] for row in history),
        "curve": [
            {
                "tokens": (k + 1) * share * tokens,
                "loss": statistics.mean(row["loss"] for row in part),
                "density": _last(part, "density"),
                "strength": part[-1]["strength"],
            }
            for k, part in enumerate(parts)
        ],
    }


def _last(part: Sequence[Mapping[str, float]], key: str) -> float | None:
    values = [row[key] for row in part if row[key] == row[key]]
    return values[-1] if values else None
