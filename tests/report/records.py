"""Records with invented figures, to test what is made from records."""

from __future__ import annotations

from typing import Any

from lazyneuron.core.environment import Environment
from lazyneuron.core.record import Record

ENVIRONMENT = Environment(
    commit="0123456789abcdef0123456789abcdef01234567",
    lazyneuron="0.1.0",
    torch="2.13.0",
    python="3.11.9",
    processor="Example Processor 9000",
    isa=("avx2", "fma"),
    cores=2,
    threads=2,
)
BASES = {"1 x 10": (10, 8.1), "1 x 60": (60, 18.4), "32 x 48": (1536, 381.0)}
FACTORS = {"original": 1.0, "relu dense": 0.97, "relu compiled": 1.05, "relu int8": 0.8, "relu accelerated": 0.7}


def demo_data() -> dict[str, Any]:
    would = [0.182, 0.070, 0.064, 0.055, 0.084, 0.104]
    after = [0.121, 0.083, 0.071, 0.066, 0.089, 0.108]
    blocks = [
        {
            "name": f"encoder.layer.{k}",
            "density_before": 1.0,
            "would_be_relu": w,
            "density_after": a,
            "computed_share": a * 1.35,
        }
        for k, (w, a) in enumerate(zip(would, after, strict=True))
    ]
    latency = [
        {
            "case": case,
            "tokens": tokens,
            "rows": [
                {"variant": v, "median_ms": ms * f, "low_ms": ms * f * 0.96, "high_ms": ms * f * 1.09, "n": 40}
                for v, f in FACTORS.items()
            ],
            "mlp_share": share,
            "ceiling": 1 / (1 - share),
            "speedup": 1 / FACTORS["relu accelerated"],
            "density_ceiling": 1.46,
            "speedup_over_relu_dense": FACTORS["relu dense"] / FACTORS["relu accelerated"],
        }
        for (case, (tokens, ms)), share in zip(BASES.items(), (0.34, 0.45, 0.62), strict=True)
    ]
    frontier = [
        ("ReLU, untrained", 0.093, 0.41, 0.12),
        ("thresholds and refit at 0.2, no gradients", 0.2, 0.951, 0.71),
        ("thresholds and refit at 0.1, no gradients", 0.1, 0.912, 0.62),
        ("after 200 steps", 0.094, 0.961, 0.72),
        ("distilled", 0.09, 0.973, 0.771),
    ]
    return {
        "blocks": blocks,
        "quality": {"mean_cosine": 0.973, "top1_agreement": 0.771, "rank_correlation": 0.951, "n_lines": 2000},
        "frontier": [
            {"label": label, "density": d, "mean_cosine": c, "top1_agreement": t} for label, d, c, t in frontier
        ],
        "latency": latency,
        "max_abs_difference": 4.77e-7,
        "notes": ["This torch has no oneDNN, so dense products are slower than they could be."],
        "timing_s": {
            "load": 2.1,
            "measure": 4.4,
            "layer-wise": 71.0,
            "end to end": 140.5,
            "accelerate": 3.2,
            "time": 38.7,
        },
        "settings": {
            "model": "all-MiniLM-L6-v2",
            "text": "the standard library of Python 3.11",
            "steps": 300,
            "seed": 0,
        },
    }


def demo_record(**changes: Any) -> Record:
    return Record(kind="demo", data={**demo_data(), **changes}, seed=0, environment=ENVIRONMENT)


def sparsity_block(k: int, **changes: Any) -> dict[str, Any]:
    density = 0.05 + 0.03 * k
    unions = [(t, min(1.0, density * t**0.45)) for t in (1, 2, 4, 8, 16, 64, 256)]
    return {
        "name": f"encoder.layer.{k}",
        "activation": "relu",
        "gated": False,
        "d_hidden": 1536,
        "tokens": 4096,
        "density": density,
        "density_if_relu": density,
        "dead": 40 * k,
        "always_on": k,
        "overlap": 0.2 + 0.02 * k,
        "notes": [],
        "rate_histogram": [900, 300, 130, 80, 50, 30, 20, 10, 5, 3, 2, 1, 1, 1, 0, 0, 0, 1, 1, 1],
        "unions": [{"tokens": t, "density": u, "windows": 4096 // t} for t, u in unions],
        "traffic": [
            {
                "tokens": 1,
                "dense_bytes": 100,
                "certified_bytes_at_least": 12.5 + 100 * density,
                "speedup_ceiling_from_bytes": 5,
            }
        ],
        "predicted": [],
        **changes,
    }


def sparsity_record(**changes: Any) -> Record:
    data = {
        "batches": 8,
        "threshold": None,
        "training": False,
        "density": 0.125,
        "mlp_time_share": 0.41,
        "notes": [],
        "blocks": [sparsity_block(k) for k in range(6)],
        "settings": {"model": "all-MiniLM-L6-v2", "data": "lines.txt"},
        **changes,
    }
    return Record(kind="measure", data=data, seed=None, environment=ENVIRONMENT)
