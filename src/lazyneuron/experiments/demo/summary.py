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


EXPERIMENT = Experiment(
    name="demo",
    title="A pretrained sentence encoder made sparse and run sparsely",
    run=_run,
    kind="demo",
    sections={"README.md": summary},
    figures={"demo-latency.png": latency_figure, "demo-density.png": density_figure},
)
