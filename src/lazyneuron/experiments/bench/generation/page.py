"""The record as the pages show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.generation import cases as names
from lazyneuron.experiments.bench.parts import elsewhere
from lazyneuron.report import markdown_table, provenance

Row = dict[str, Any]


def rows_of(record: Record) -> list[Row]:
    """All rows, in the order of the cases."""
    return [row for rows in record.data["cases"].values() for row in rows]


def whole_page(record: Record) -> str:
    """Goals, then every row of every shape, then what could not run."""
    rows = rows_of(record)
    measured = [row for row in rows if "ms" in row]
    parts = ["### Goals", markdown_table(_goals(measured))] if any("reached" in row for row in measured) else []
    shapes = dict.fromkeys(row["shape"] for row in measured if row["part"] != names.CALLS)
    for shape in shapes:
        shown = [_row(row) for row in measured if row["shape"] == shape and row["part"] != names.CALLS]
        parts += [f"### {shape}", markdown_table(shown)]
    calls = [_call(row) for row in measured if row["part"] == names.CALLS]
    parts += ["### Time outside kernels", markdown_table(calls)] if calls else []
    notes = [f"- {row['case']}, {row.get('engine', 'ours')}: {row['note']}" for row in rows if "note" in row]
    parts += ["### Not measured", "\n".join(notes)] if notes else []
    engines = _engines(rows)
    parts += [engines] if engines else []
    return "\n\n".join([*parts, _measured(record)]) + "\n"


def summary(record: Record) -> str:
    """One line a format of the first shape, for the front page."""
    rows = [row for row in rows_of(record) if "ms" in row and row["part"] == names.ONE]
    shape = rows[0]["shape"] if rows else None
    first = [row for row in rows if row["shape"] == shape and row["density"] == min(r["density"] for r in rows)]
    shown = [_row(row) for row in first if row["engine"] != names.COMPILED]
    if not shown:
        return ""
    intro = (
        f"Decoding one sequence with random weights in the sizes of {shape}; [all of it](docs/generate.md#measured):"
    )
    return f"{intro}\n\n{markdown_table(shown)}\n\n{provenance(record)}\n\n"


def _measured(record: Record) -> str:
    """Where the record was measured, and which cases at another commit."""
    return f"{provenance(record)} {elsewhere(record, record.data['cases'])}".rstrip()


def _goals(rows: Sequence[Row]) -> list[Row]:
    found = []
    for row in rows:
        if "goal" in row:
            measured, wanted = _times(row["ratio"]), f"at least {row['goal']:.2f}x {row['goal_over']}"
        elif "most_ms" in row:
            measured, wanted = f"{row['ms']:.1f} ms", f"at most {row['most_ms']:g} ms"
        else:
            continue
        words = {True: "yes", False: "no", None: "not measured"}[row["reached"]]
        found.append(
            {"case": row["case"], "part": row["part"], "engine": row["engine"], "goal": wanted, "measured": measured,
             "reached": words}
        )  # fmt: skip
    return found


def _row(row: Row) -> Row:
    ceiling = row.get("ceiling_tokens_per_s")
    others = [name for name in row["over"] if name not in (names.EVERY, names.OURS, names.COMPILED)]
    computed = row.get("computed")
    return {
        "weights / rest": f"{row['weights']} / {row['rest']}",
        "density": f"{row['density']:g}",
        "computed": "-" if computed is None else f"{computed:.3f}",
        "part": row["part"],
        "engine": row["engine"],
        "tokens/s": round(row["tokens_per_s"], 1),
        "ms": round(row["ms"], 1),
        "ceiling tokens/s": "-" if ceiling is None else f"{ceiling:.1f}",
        "vs every neuron": _over(row, names.EVERY),
        "vs the other engine": _over(row, others[0]) if others else "-",
    }


def _over(row: Row, other: str) -> str:
    if other not in row["over"]:
        return "-"
    found = row["over"][other]
    low, high = found["quartiles"]
    return f"{found['median']:.2f}x ({low:.2f} to {high:.2f})"


def _call(row: Row) -> Row:
    return {"weights / rest": f"{row['weights']} / {row['rest']}", "engine": row["engine"], "ms": round(row["ms"], 2)}


def _engines(rows: Sequence[Row]) -> str:
    """Versions and settings of the other engines, and whether their threads slept in between."""
    lines = {}
    for row in rows:
        if "facts" in row:
            facts = row["facts"]
            versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
            settings = ", ".join(f"{name} {value}".strip() for name, value in facts["settings"].items())
            lines[row["engine"]] = f"- {row['engine']}: {versions}; {settings}."
    if not lines:
        return ""
    idle = max(max(row["idle"], row["own_idle"]) for row in rows if "facts" in row)
    return "\n".join(lines.values()) + f"\n\nWhile one engine ran, the other took at most {idle:.1%} of one processor."


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"
