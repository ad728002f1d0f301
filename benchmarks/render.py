"""Render committed records into the documentation: ``python -m benchmarks.render``.

Tables stand between ``<!-- results -->`` and ``<!-- /results -->``; nothing else on a page is touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lazyneuron.core.record import Record, write_text
from lazyneuron.report.tables import markdown_table, provenance

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks" / "records"
_MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
_COLUMNS = {
    "shape": "shape",
    "dtype": "dtype",
    "weights": "weights",
    "tokens": "tokens",
    "density": "density",
    "dense_us": "dense us",
    "int8_us": "dynamic int8 us",
    "gather_us": "gather us",
    "certified-2_us": "certified, 2 planes us",
    "certified-1_us": "certified, 1 plane us",
    "ours": "chosen",
    "vs_dense": "vs dense",
    "vs_int8": "vs int8",
    "ceiling_us": "byte ceiling us",
    "over_ceiling": "over ceiling",
    "computed": "computed share",
    "union": "union density",
}


def accelerate_table(record: Record) -> str:
    """The grid of :mod:`benchmarks.accelerate` as Markdown."""
    rows = [{title: row.get(key) for key, title in _COLUMNS.items()} for row in record.data["rows"]]
    return f"**{record.data['title']}**\n\n{markdown_table(rows)}\n\n{provenance(record)}\n"


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
            }
        )
    return (
        f"all-MiniLM-L6-v2 on Python's standard library: density {density:.3f} (before: 1.000), mean cosine to the "
        f"original {quality['mean_cosine']:.3f}, top-1 neighbour agreement {quality['top1_agreement']:.3f}, rank "
        f"correlation {quality['rank_correlation']:.3f} on {quality['n_lines']} held-out lines; largest output "
        f"difference between dense and accelerated {data['max_abs_difference']:.1e}. Speed-up is accelerated over the "
        f"dense ReLU model.\n\n{markdown_table(rows)}\n\n{provenance(record)}\n"
    )


def fill(page: Path, text: str) -> None:
    """Put a text between the markers of a page."""
    content = page.read_text(encoding="utf-8")
    if not _MARKED.search(content):
        raise SystemExit(f"{page} has no results markers.")
    write_text(page, _MARKED.sub(lambda m: m.group(1) + text + m.group(2), content))


def main() -> None:
    """Render every record that is there."""
    demo, grid = RECORDS / "demo.json", RECORDS / "accelerate.json"
    if demo.exists():
        fill(ROOT / "README.md", demo_summary(Record.from_json(demo.read_text(encoding="utf-8"))))
    if grid.exists():
        fill(ROOT / "docs" / "benchmarks.md", accelerate_table(Record.from_json(grid.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
