"""Render committed records into the documentation.

Tables stand between ``<!-- results -->`` and ``<!-- /results -->``; nothing else on a page is touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lazyneuron.core.record import Record, write_text
from lazyneuron.experiments.bench import view
from lazyneuron.experiments.benchmarks.goals import read_goals, shortfalls
from lazyneuron.experiments.catalogue import EXPERIMENTS, experiment
from lazyneuron.report.curves import curves_figure
from lazyneuron.report.figures import density_figure, latency_figure
from lazyneuron.report.frontier import frontier_figure, frontier_rows
from lazyneuron.report.numbers import NOTHING
from lazyneuron.report.tables import markdown_table, provenance

ROOT = Path(__file__).resolve().parents[4]
RECORDS = ROOT / "records"
PICTURES = ROOT / "docs" / "assets"
_MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
_COLUMN_NAMES = {"vs_dense": "vs dense", "vs_int8": "vs int8", "over_ceiling": "over ceiling"}


def accelerate_page(record: Record) -> str:
    """A ``benchmark/accelerate`` record as Markdown: what decides, what falls short, the baselines, the whole grid.

    Raises:
        SystemExit: the record was written by an older version.
    """
    rows = record.data["rows"]
    if not rows or any("threads" not in row for row in rows):
        raise SystemExit("The benchmark's record is of an older version; measure it again.")
    parts = [f"**{record.data['title']}**", provenance(record)]
    targets = view.target_rows(rows)
    if targets:
        parts += [
            "### Target cases",
            "Density 0.05; speed against dense unless a column says otherwise.",
            markdown_table(targets),
        ]
    parts += ["### What falls short", short_text(rows)]
    groups = view.baseline_groups(rows)
    if groups:
        parts += ["### Against other methods", "Speed against dense at each token count, quality from the same run."]
    for name, group in groups.items():
        parts += [
            f"**{name}**",
            markdown_table(view.baseline_rows(group)),
            "\n".join(f"- {r}" for r in view.reasons(group)),
        ]
    parts.append("### The whole grid")
    for name, group in view.grouped(rows).items():
        parts += [f"**{name}**", markdown_table(_without_empty([view.case_row(row) for row in group]))]
    return "\n\n".join(part for part in parts if part) + "\n"


def short_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows that miss a goal, goal by goal with the reason, or the sentence that there is none."""
    goals = read_goals()
    missed = shortfalls(rows, goals)
    if not missed:
        return "Every goal in `goals.json` is met."
    why = {goal["case"]: goal.get("why", "") for goal in goals}
    parts = [f"{len(missed)} rows miss one of the {len(goals)} goals in `goals.json`."]
    for case, column, wanted in dict.fromkeys((m["case"], m["column"], m["wanted"]) for m in missed):
        found = [m for m in missed if (m["case"], m["column"]) == (case, column)]
        parts.append(f"**{case}: {_COLUMN_NAMES[column]} {wanted}.** {why[case]}".strip())
        table = [{"row": m["row"] or "not measured", _COLUMN_NAMES[column]: m["measured"]} for m in found]
        parts.append(markdown_table(table))
    return "\n\n".join(parts)


def _without_empty(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the columns in which no row has anything."""
    empty = {key for key in rows[0] if all(row[key] in (None, NOTHING) for row in rows)}
    return [{key: value for key, value in row.items() if key not in empty} for row in rows]


def demo_summary(record: Record) -> str:
    """The demo's result in a few lines."""
    data: Mapping[str, Any] = record.data
    density = sum(b["density_after"] for b in data["blocks"]) / len(data["blocks"])
    quality = data["quality"]
    rows = []
    for case in data["latency"]:
        times = {row["variant"]: row.get("median_ms") for row in case["rows"]}
        rows.append(
            {
                "input": case["case"],
                **{f"{name} ms": None if value is None else round(value, 2) for name, value in times.items()},
                "speed-up": f"{case['speedup']:.2f}x",
                "ceiling": f"{case['ceiling']:.2f}x",
                "at this density": f"{case['density_ceiling']:.2f}x",
            }
        )
    return (
        f"all-MiniLM-L6-v2 on Python's standard library: density {density:.3f} (before: 1.000), mean cosine to the "
        f"original {quality['mean_cosine']:.3f}, top-1 neighbour agreement {quality['top1_agreement']:.3f}, rank "
        f"correlation {quality['rank_correlation']:.3f} on {quality['n_lines']} held-out lines; largest output "
        f"difference between dense and accelerated {data['max_abs_difference']:.1e}. Speed-up is accelerated over the "
        f"original, ceiling if MLP blocks cost nothing.\n\n{markdown_table(rows)}\n\n{provenance(record)}\n"
    )


def recipes_table(record: Record) -> str:
    """A ``benchmark/recipes`` record as Markdown."""
    found = record.data["rows"]
    rows = [{**row, "quartiles": " to ".join(map(str, row["quartiles"]))} for row in found if "quartiles" in row]
    refused = "\n".join(f"- {row['recipe']}: {row['note']}" for row in found if "note" in row)
    return f"**{record.data['title']}**\n\n{markdown_table(rows)}\n\n{refused}\n\n{provenance(record)}\n"


def explain_cost(record: Record) -> str:
    """A ``benchmark/explain`` record as Markdown."""
    rows = [
        {
            "model": row["model"],
            "training step ms": round(row["training_step_ms"]),
            "explain ms": round(row["explain_ms"]),
            "ratio": f"{row['ratio']:.2f}x",
            "lowest to highest": f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}",
            "spectra, once, ms": round(row["spectra_once_ms"]),
            "step with a reading": f"{row['watched_step_ratio']:.2f}x",
            "step with a guard": f"{row['guarded_step_ratio']:.2f}x",
        }
        for row in record.data["rows"]
    ]
    return (
        "Medians of rounds in which both ran in turns; a training step is forward, backward and AdamW. The ratio is to "
        "be at most 3. The last columns are a training step that `SparsityMonitor` looks at, and one with `LossGuard`, "
        f"over a bare one.\n\n{markdown_table(rows)}\n\n{provenance(record)}\n"
    )


def reproduced(records: Sequence[Record]) -> str:
    """Reproduced experiments as Markdown: the sentence, the table, the figure, and what differs."""
    parts = []
    for record in records:
        data = record.data
        wanted = experiment(data["experiment"])
        rows = [
            {key: "not published" if value is None else value for key, value in row.items()} for row in data["rows"]
        ]
        settings = {key: value for key, value in data["settings"].items() if key not in ("runs", "variants")}
        parts += [
            f"## {wanted.title}",
            f"`lazyneuron reproduce {wanted.name}`. Source: {wanted.source}.",
            f"**{data['says']}**",
            markdown_table(rows),
            f"![{wanted.title}](assets/{wanted.name}.png)",
            f"*What differs:* {data['differs']}",
            f"*Settings:* {', '.join(f'{key} {value}' for key, value in settings.items())}.",
            provenance(record),
        ]
    return "\n\n".join(parts) + "\n"


def jsrelu_table(record: Record) -> str:
    """A ``benchmark/jsrelu`` record as Markdown."""
    table = [
        {
            "shape": f"{row['shape']}, {row['dtype']}",
            "MiB moved": row["moved_mib"],
            "ReLU us": row["relu_us"],
            "JSReLU us": row["jsrelu_us"],
            "with a cap us": row["capped_us"],
            "plain torch us": row["plain_us"],
            "JSReLU over ReLU": row["over_relu"],
            "quartiles": " to ".join(map(str, row["over_relu_quartiles"])),
        }
        for row in record.data["rows"]
    ]
    return f"{markdown_table(table)}\n\n{provenance(record)}\n"


def checks_table(record: Record) -> str:
    """A ``benchmark/checks`` record as Markdown."""
    table = [
        {
            "block": row["shape"],
            "kernel us": row["kernel_us"],
            "with all checks us": row["checked_us"],
            "checks us": row["checks_us"],
            "their bytes alone us": row["bytes_us"],
            "dense us": row["dense_us"],
            "checks where dense is chosen us": row["declined_us"],
            "calls to see all": row["calls_to_see_all"],
        }
        for row in record.data["rows"]
    ]
    return f"{markdown_table(table)}\n\n{provenance(record)}\n"


def learn_page(speed: Record | None, experiments: Sequence[Record]) -> str:
    """What learning costs, and what each experiment on sparsely activated classes shows."""
    parts = []
    for record in experiments:
        data = record.data
        parts.append(
            f"- `{data['experiment']}`, {experiment(data['experiment']).title.partition(': ')[2]}. {data['says']}"
        )
    if speed is not None:
        columns = [key for row in speed.data["rows"] for key in row if key not in ("samples", "note")]
        rows = [{key: row.get(key) for key in dict.fromkeys(columns)} for row in speed.data["rows"]]
        notes = "\n".join(f"- {row['case']}: {row['note']}" for row in speed.data["rows"])
        parts += ["", "### Low-degree learning: speed", "", markdown_table(rows), "", notes, "", provenance(speed)]
    return "\n".join(parts) + "\n"


def route_page(record: Record) -> str:
    """A ``benchmark/route`` record as Markdown: speed, peers by data set, and the output layer."""
    data = record.data
    parts = [f"**{data['title']}**", provenance(record)]
    titles = {
        "speed": "### Rows a second at d = 8, one table",
        "flatness": "### Predict time over buckets (the operator alone, degree 1, buckets asked for at random)",
        "output": "### An output layer of very many classes",
    }
    for name, title in titles.items():
        if data.get(name):
            parts += [title, markdown_table(data[name])]
    for name in dict.fromkeys(row["data"] for row in data.get("compare", ())):
        rows = [{k: v for k, v in row.items() if k != "data"} for row in data["compare"] if row["data"] == name]
        parts += [f"### {name}", markdown_table(rows)]
    return "\n\n".join(parts) + "\n"


def sweep_table(record: Record) -> str:
    """A ``sweep`` record as Markdown; its figure is drawn beside the others."""
    frontier_figure(record, PICTURES / "sweep.png")
    data = record.data
    parts = (
        markdown_table(frontier_rows(record)),
        f"Pareto points: {'; '.join(data['frontier'])}. All took {data['seconds'] / 60:.0f} minutes of one core.",
        f"![Density against {data['quality']}](assets/sweep.png)",
        provenance(record),
    )
    return "\n\n".join(parts) + "\n"


_PAGES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "accelerate": ("benchmarks.md", accelerate_page),
    "checks": ("reliability.md", checks_table),
    "explain": ("explain.md", explain_cost),
    "jsrelu": ("induce.md", jsrelu_table),
    "recipes": ("accelerate.md", recipes_table),
    "route": ("route.md", route_page),
    "sweep": ("train.md", sweep_table),
}


def fill(page: Path, text: str) -> None:
    """Put a text between the markers of a page."""
    content = page.read_text(encoding="utf-8")
    if not _MARKED.search(content):
        raise SystemExit(f"{page} has no results markers.")
    write_text(page, _MARKED.sub(lambda m: m.group(1) + text + m.group(2), content))


def main() -> None:
    """Render every record that is there."""
    demo = RECORDS / "demo.json"
    if demo.exists():
        record = Record.from_json(demo.read_text(encoding="utf-8"))
        fill(ROOT / "README.md", demo_summary(record))
        latency_figure(record, PICTURES / "demo-latency.png")
        density_figure(record, PICTURES / "demo-density.png")
    found = [
        Record.from_json((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
        for name in EXPERIMENTS
        if (RECORDS / f"{name}.json").exists()
    ]
    if found:
        fill(ROOT / "docs" / "reproduce.md", reproduced(found))
        for record in found:
            curves_figure(record, PICTURES / f"{record.data['experiment']}.png")
    speed = RECORDS / "learn.json"
    classes = [record for record in found if record.data["experiment"].startswith("awasthi")]
    if speed.exists() or classes:
        measured = Record.from_json(speed.read_text(encoding="utf-8")) if speed.exists() else None
        fill(ROOT / "docs" / "learn.md", learn_page(measured, classes))
    for name, (page, text) in _PAGES.items():
        path = RECORDS / f"{name}.json"
        if path.exists():
            fill(ROOT / "docs" / page, text(Record.from_json(path.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
