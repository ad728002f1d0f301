"""``lazyneuron learn``: a polynomial of low degree from a file of two-valued columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lazyneuron.cli.options import JsonFile, Seed

if TYPE_CHECKING:
    from lazyneuron.cli.columns import Columns

_SHOWN = 12
_NOTE = (
    "Guarantees of low-degree learning are for uniform or independent inputs; the held-out error is what counts on "
    "your data."
)


def learn(
    file: Annotated[Path, typer.Argument(help="A .csv file with a header, or .npz with X and y.")],
    *,
    target: Annotated[str | None, typer.Option("--target", help="Target column of a CSV file (the last).")] = None,
    degree: Annotated[str, typer.Option("--degree", help="A number, auto, or spectrum.")] = "auto",
    solver: Annotated[
        str, typer.Option("--solver", help="auto, ols, ridge, lmn, lasso, threshold, kernel or l1.")
    ] = "auto",
    alpha: Annotated[float | None, typer.Option("--alpha", help="Penalty, where the solver takes one.")] = None,
    encode: Annotated[
        str, typer.Option("--encode", help="auto: two-valued columns; median: cut any column (no guarantee holds).")
    ] = "auto",
    held_out: Annotated[float, typer.Option("--held-out", help="Share of rows to test on.")] = 0.2,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Learn a polynomial of low degree, and say what it found and how well it predicts held-out rows."""
    from lazyneuron.cli.columns import read_columns
    from lazyneuron.cli.output import check_writable, write_record
    from lazyneuron.cli.screen import print_lines, print_notes, print_table
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.core.record import Record

    check_writable(json_file)
    if not 0 < held_out < 1:
        raise ConfigError(f"The share of held-out rows lies strictly between 0 and 1, got {held_out}.")
    table = read_columns(file, target=target)
    options = {"degree": _degree(degree), "solver": solver, "alpha": alpha, "encode": encode}
    data = _learn(table, options, held_out=held_out, seed=seed)
    print_lines(data["finding"])
    for title, rows in (("Weight by degree", data["weight_by_degree"]), ("Largest coefficients", data["coefficients"])):
        if rows:
            print_table(title, rows)
    print_notes(data["warnings"])
    write_record(json_file, Record(kind="learn", data=data, seed=seed))


def _degree(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


def _learn(table: Columns, options: dict[str, Any], *, held_out: float, seed: int) -> dict[str, Any]:
    import warnings

    import numpy as np

    from lazyneuron.core.errors import DataError, ImplUnavailable

    try:
        from lazyneuron.learn.estimators import LowDegreeRegressor
    except ImportError as error:
        raise ImplUnavailable("Learning needs scikit-learn; run `pip install 'lazyneuron[learn]'`.") from error
    order = np.random.default_rng(seed).permutation(len(table.y))
    count = max(round(held_out * len(order)), 1)
    if len(order) - count < 2:
        raise DataError(f"Learning and testing need at least 3 rows, got {len(order)}.")
    test, train = order[:count], order[count:]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = LowDegreeRegressor(**options).fit(table.x[train], table.y[train])
    except DataError:
        raise
    except ValueError as error:  # what scikit-learn finds wrong with the data
        raise DataError(str(error).splitlines()[0]) from error
    found = model.predict(table.x[test])
    squared = float(np.mean((found - table.y[test]) ** 2))
    spread = float(np.var(table.y[test]))
    finding = (
        f"Degree {model.degree_} ({model.degree_choice_.rule}), {model.method_}: on {count} held-out rows the "
        f"squared error is {squared:.4g}, {squared / spread:.3g} of their variance."
        if spread
        else f"Degree {model.degree_}: squared error {squared:.4g} on {count} held-out rows, all with one label."
    )
    if model.gram_bound_ is not None:
        at_least = "at least " if model.gram_bound_.failure_probability else ""
        finding += f" Least Gram eigenvalue {at_least}{model.gram_min_eigenvalue_:.3g}."
    return {
        "finding": finding,
        "degree": model.degree_,
        "solver": model.solver_,
        "held_out_error": squared,
        "held_out_variance": spread,
        "weight_by_degree": _weights(model),
        "coefficients": _largest(model, table.names),
        "warnings": [_NOTE, *(str(w.message) for w in caught)],
    }


def _weights(model: Any) -> list[dict[str, Any]]:
    if model.coef_ is None:
        return []
    return [{"degree": t, "weight": float(w)} for t, w in enumerate(model.weight_by_degree_)]


def _largest(model: Any, names: tuple[str, ...]) -> list[dict[str, Any]]:
    import numpy as np

    if model.coef_ is None:
        return []
    places = np.argsort(-np.abs(model.coef_))[:_SHOWN]
    return [
        {
            "product of": " ".join(names[t] for t in model.subsets_[i] if t >= 0) or "1",
            "coefficient": float(model.coef_[i]),
        }
        for i in places
    ]
