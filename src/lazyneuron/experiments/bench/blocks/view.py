"""Rows for tables from a benchmark record's rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lazyneuron.report.numbers import NOTHING, ratio, significant

Row = Mapping[str, Any]

_FEW = 3  # baselines that a row of the plain grid may have without being shown in the table of baselines
_DENSE, _OURS = "dense", "ours"
#: The cases that a summary shows: title -> (tokens, density, column).
TARGETS = {
    "1 token": (1, 0.05, "vs_dense"),
    "1 token, vs int8": (1, 0.05, "vs_int8"),
    "1 token, over ceiling": (1, 0.05, "over_ceiling"),
    "4 tokens": (4, 0.05, "vs_dense"),
    "16 tokens": (16, 0.05, "vs_dense"),
    "128 tokens": (128, 0.05, "vs_dense"),
    "1 token, all fire": (1, 1.0, "vs_dense"),
}


def group_name(row: Row) -> str:
    """Weights and threads in words, e.g. ``1024 x 4096, float32, 2 threads``."""
    threads = row["threads"]
    return f"{row['shape']}, {row['dtype']}, {threads} thread{'' if threads == 1 else 's'}"


def grouped(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by weights and threads, in the order of the record."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_name(row), []).append(row)
    return groups


def case_row(row: Row) -> dict[str, Any]:
    """One case of the grid; what was not measured is a dash with its reason."""
    quartiles = row.get("vs_dense_quartiles")
    return {
        "tokens": row["tokens"],
        "density": f"{row['density']:g}",
        "dense us": row.get("dense_us"),
        "int8 us": row.get("int8_us"),
        "ours us": row.get("ours_us"),
        "chosen": row.get("ours"),
        "vs dense": ratio(row.get("vs_dense")),
        "quartiles": None if quartiles is None else " to ".join(significant(q) for q in quartiles),
        "vs int8": ratio(row.get("vs_int8")),
        "byte ceiling us": row.get("byte_ceiling_us"),
        "FLOP ceiling us": row.get("flop_ceiling_us"),
        "over ceiling": row.get("over_ceiling"),
        "error": row.get("error"),
        "added MiB": mebibytes(row.get("added_bytes")),
        "remark": remark(row),
    }


def short_row(row: Row) -> dict[str, Any]:
    """One case in as few columns as a terminal holds."""
    full = case_row(row)
    kept = ("tokens", "density", "dense us", "int8 us", "ours us", "chosen", "vs dense", "vs int8")
    ceilings = [row[key] for key in ("byte_ceiling_us", "flop_ceiling_us") if key in row]
    return {
        **{key: full[key] for key in kept},
        "ceiling us": max(ceilings, default=None),
        "error": None if row.get("error") is None else significant(row["error"], 1),
        "MiB": full["added MiB"],
    }


def remarks(rows: Iterable[Row]) -> list[str]:
    """What is to be said of some rows, a line each."""
    said = ((row, remark(row)) for row in rows)
    return [f"{_tokens(row['tokens'])}, density {row['density']:g}: {text}" for row, text in said if text]


def remark(row: Row) -> str | None:
    """Why a row has no figures, whether they are noisy, and whether the dispatcher changed its mind."""
    if "reason" in row:
        return str(row["reason"])
    remarks = []
    if row.get("noisy"):
        times = "twice" if row.get("noisy_again") else "once"
        remarks.append(f"noisy {times}; measured before: {ratio(row['first']['vs_dense'])}")
    if "ours_at_the_end" in row:
        remarks.append(f"went over to {row['ours_at_the_end']}")
    return "; ".join(remarks) or None


def target_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row for weights and threads with the ratios that decide; combinations without any are left out."""
    found = []
    for group in grouped(rows).values():
        cells = {title: _cell(group, *target) for title, target in TARGETS.items()}
        if any(value is not None for value in cells.values()):
            found.append({"block": group_name(group[0]), **{k: ratio(v) for k, v in cells.items()}})
    return found


def _cell(rows: Iterable[Row], tokens: int, density: float, column: str) -> float | None:
    values = (row.get(column) for row in rows if (row["tokens"], row["density"]) == (tokens, density))
    return next(values, None)


def baseline_groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows that all baselines were measured on, by weights, threads and density."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        names = {c["name"] for c in row.get("candidates", [])} - {_DENSE, _OURS, "certified-1", "certified-2"}
        if len(names) > _FEW:
            groups.setdefault(f"{group_name(row)}, density {row['density']:g}", []).append(row)
    return groups


def baseline_rows(group: Sequence[Row]) -> list[dict[str, Any]]:
    """One row a method: speed against dense at each token count, and quality and memory beside it."""
    names = list(dict.fromkeys(c["name"] for row in group for c in row["candidates"]))
    return [_method(name, group) for name in names]


def _method(name: str, group: Sequence[Row]) -> dict[str, Any]:
    found = {row["tokens"]: c for row in group for c in row["candidates"] if c["name"] == name}
    first = next(iter(found.values()))
    speeds = {_tokens(n): ratio(found[n].get("vs_dense")) if n in found else NOTHING for n in _counts(group)}
    return {
        "method": name,
        **speeds,
        "exact": first.get("exact"),
        "relative error": _span(c.get("error") for c in found.values()),
        "firing missed": _span(c.get("missed") for c in found.values()),
        "added MiB": mebibytes(first.get("added_bytes")),
        "setting": first.get("note"),
    }


def reasons(group: Sequence[Row]) -> list[str]:
    """Why some methods have no time, one sentence each."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, candidate in itertools.chain.from_iterable(((r, c) for c in r["candidates"]) for r in group):
        if candidate.get("reason"):
            found.setdefault((candidate["name"], candidate["reason"]), []).append(row["tokens"])
    return [f"{name} ({', '.join(map(_tokens, counts))}): {reason}" for (name, reason), counts in found.items()]


def _counts(group: Iterable[Row]) -> list[int]:
    return sorted({row["tokens"] for row in group})


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _span(values: Iterable[float | None]) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return NOTHING
    low, high = significant(min(known), 2), significant(max(known), 2)
    return low if low == high else f"{low} to {high}"


def mebibytes(count: int | None) -> str:
    """Bytes in MiB."""
    return NOTHING if count is None else f"{count / 2**20:.1f}"
