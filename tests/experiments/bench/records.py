"""A small benchmark record, made by hand."""

from lazyneuron.core.record import Record


def row(**changes):
    return {
        "shape": "1024 x 4096",
        "dtype": "float32",
        "tokens": 1,
        "density": 0.05,
        "threads": 2,
        "ours": "certified-2",
        "dense_us": 1000.0,
        "int8_us": 300.0,
        "ours_us": 200.0,
        "vs_dense": 5.0,
        "vs_dense_quartiles": [4.5, 5.5],
        "vs_int8": 1.5,
        "byte_ceiling_us": 180.0,
        "flop_ceiling_us": 10.0,
        "over_ceiling": 1.11,
        "error": 1e-6,
        "added_bytes": 2**20,
        "candidates": [
            {"name": "dense", "exact": True, "error": 0.0, "added_bytes": 0, "vs_dense": 1.0},
            {"name": "ours", "exact": True, "error": 1e-6, "missed": 0.0, "added_bytes": 2**20, "vs_dense": 5.0},
            {"name": "int8", "exact": False, "error": 0.03, "added_bytes": -(2**22), "vs_dense": 3.0},
        ],
    } | changes


def compared(tokens, speed):
    extra = [
        {
            "name": "teal",
            "exact": False,
            "error": speed / 10,
            "missed": 0.4,
            "vs_dense": speed,
            "note": "as many bytes",
        },
        {"name": "csr", "exact": True, "reason": "No CSR product here."},
    ]
    candidates = [*row()["candidates"], *extra, {"name": "cats", "exact": False, "error": 0.2, "vs_dense": 1.25}]
    return row(tokens=tokens, candidates=candidates)


def record(rows):
    return Record(kind="benchmark/accelerate", data={"title": "Synthetic", "rows": rows}, seed=0)
