"""An open question of Baykal et al.: does a mask make t units say more than t dense units do?"""

from __future__ import annotations

from lazyneuron.experiments.experiment import Finding, Request, band, published
from lazyneuron.experiments.reproduce.baykal.samples import (
    CLOSED_FORM,
    SOURCE,
    draw,
    masked_network,
    mean_squared_error,
)

_DIFFERS = f"{CLOSED_FORM} The paper asks this question and answers it with no measurement."


def run(request: Request) -> Finding:
    """Dense t against masks on the same t units."""
    widths = (32, 64) if request.quick else (128, 256, 512, 1024)
    rows_count = 2000 if request.quick else 20000
    samples = [draw("hypercube", rows=rows_count, tests=4000, seed=s) for s in range(request.seeds)]
    variants = {"dense": (1, True), "half, own scores": (2, True), "half, separate scores": (2, False)}
    curves = []
    for number, (label, (share, own)) in enumerate(variants.items()):
        runs = [
            [mean_squared_error(masked_network(t, t // share, seed=seed, own_scores=own), sample) for t in widths]
            for seed, sample in enumerate(samples)
        ]
        curves.append(band(label, x=widths, runs=runs))
        request.advance((number + 1) / len(variants), label)
    rows = [
        {"units": t, **{f"{c['label']} MSE": c["y"][k] for c in curves}, "paper": None} for k, t in enumerate(widths)
    ]
    ratio = curves[2]["y"][-1] / curves[0]["y"][-1]
    return Finding(
        rows=rows,
        curves=curves,
        sentence=f"With {widths[-1]} units in all, letting each input use half of them, chosen by scores of their own, "
        "leaves "
        f"{ratio:.2f} times the error of using all: a mask adds to what the units can say.",
        axes=("units", "mean squared error"),
        facts={"rows": rows_count, "seeds": request.seeds},
    )


EXPERIMENT = published(
    name="baykal-expressive",
    title="A mask on t units against t dense units",
    source=f"{SOURCE}, an open question of section 6",
    differs=_DIFFERS,
    run=run,
)
