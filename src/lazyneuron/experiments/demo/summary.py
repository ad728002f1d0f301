"""The demo as an experiment: its record, and what the first page says of it."""

from __future__ import annotations

from lazyneuron.core.record import Record
from lazyneuron.experiments.demo.pipeline import run_demo
from lazyneuron.experiments.demo.settings import Settings
from lazyneuron.experiments.experiment import Experiment, Request
from lazyneuron.report import density_figure, latency_figure, markdown_table, provenance


def _run(request: Request) -> Record:
    settings = Settings.quick_run() if request.quick else Settings()
    return run_demo(settings, show=lambda stage, share, note: request.advance(share, f"{stage} {note}".strip())).record


def summary(record: Record) -> str:
    """The demo's result in a few lines."""
    data = record.data
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
        f"all-MiniLM-L6-v2 on {data['settings']['text']}: density {density:.3f} (before: 1.000), mean cosine to the "
        f"original {quality['mean_cosine']:.3f}, top-1 neighbour agreement {quality['top1_agreement']:.3f}, rank "
        f"correlation {quality['rank_correlation']:.3f} on {quality['n_lines']} held-out lines; largest output "
        f"difference between dense and accelerated {data['max_abs_difference']:.1e}. Speed-up is accelerated over the "
        f"original, ceiling if MLP blocks cost nothing.\n\n{markdown_table(rows)}\n\n{provenance(record)}\n"
    )


def front(record: Record) -> str:
    """The demo on the documentation's first page: a figure and its caption."""
    return (
        "### A sentence encoder, on real text\n\n"
        "![Median time of one forward of each variant, with the ceiling](assets/demo-latency.png)\n\n"
        f"{_sentence(record)} [How it is made](demo.md).\n\n{provenance(record)}\n\n"
    )


def reached(record: Record) -> str:
    """One item of the benchmarks' first list."""
    return f"- **A sentence encoder.** {_sentence(record)} [The demo](demo.md).\n"


def _sentence(record: Record) -> str:
    data = record.data
    density = sum(b["density_after"] for b in data["blocks"]) / len(data["blocks"])
    found: dict[str, list[float]] = {}
    for case in data["latency"]:
        times = {row["variant"]: row.get("median_ms") for row in case["rows"]}
        original = next(iter(times.values()))
        for name, time in list(times.items())[1:]:
            if original is not None and time is not None:
                found.setdefault(name, []).append(original / time)
    speeds = ", ".join(f"{name} {min(some):.2f} to {max(some):.2f}" for name, some in found.items())
    ceilings = [case["ceiling"] for case in data["latency"]]
    return (
        f"all-MiniLM-L6-v2, distilled until {density:.2f} of its neurons fire; cosine "
        f"{data['quality']['mean_cosine']:.3f} to the original on held-out lines. Times the original's speed: "
        f"{speeds}; MLP blocks that cost nothing would give {min(ceilings):.2f} to {max(ceilings):.2f}."
    )


EXPERIMENT = Experiment(
    name="demo",
    title="A pretrained sentence encoder made sparse and run sparsely",
    run=_run,
    kind="demo",
    sections={"README.md": summary, "docs/index.md#encoder": front, "docs/benchmarks.md#reached": reached},
    figures={"demo-latency.png": latency_figure, "demo-density.png": density_figure},
)
