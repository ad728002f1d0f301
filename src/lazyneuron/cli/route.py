"""``lazyneuron route``: regression and classification in hashed buckets, from files of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lazyneuron.cli.options import JsonFile, Seed

if TYPE_CHECKING:
    from lazyneuron.route.estimators import LSHClassifier, LSHRegressor


def route(
    files: Annotated[list[Path], typer.Argument(help="CSV with a line of names, NPZ or Parquet; several are shards.")],
    *,
    target: Annotated[str | None, typer.Option("--target", help="Column to predict.")] = None,
    classify: Annotated[bool, typer.Option("--classify", help="The target is a label, not a number.")] = False,
    tables: Annotated[int, typer.Option("--tables", help="Tables whose predictions are averaged.", min=1)] = 1,
    degree: Annotated[
        int | None, typer.Option("--degree", help="0: a constant a bucket, 1: an affine function.")
    ] = None,
    directions: Annotated[
        str, typer.Option("--directions", help="learned, orthogonal or gaussian hash directions.")
    ] = "learned",
    capacity: Annotated[int, typer.Option("--capacity", help="Most buckets of a table.", min=1)] = 1 << 20,
    seed: Seed = 0,
    test: Annotated[Path | None, typer.Option("--test", help="File with the same columns to score on.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Save the fitted model into this folder.")] = None,
    model: Annotated[Path | None, typer.Option("--model", help="Use a saved model instead of fitting one.")] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write the model's predictions for the files to this CSV file.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Fit a hash-routed estimator to files of numbers, score it, save it, and predict with it."""
    from lazyneuron.cli.output import check_writable
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.route.estimators import LSHClassifier, LSHRegressor, load_estimator, save_estimator

    check_writable(json_file, predictions, folder=out)
    if model is None and target is None:
        raise ConfigError("Fitting needs --target, the column to predict; --model uses a saved model instead.")
    if model is not None:
        estimator = load_estimator(model)
    else:
        make = LSHClassifier if classify else LSHRegressor
        settings: dict[str, Any] = {"tables": tables, "degree": degree, "directions": directions}
        estimator = make(**settings, capacity=capacity, random_state=seed)
        _fit(estimator, files, str(target))
    if not _first_rank():
        return
    facts = _facts(estimator)
    if test is not None:
        facts["test score"] = _score(estimator, test, target)
    if out is not None:
        save_estimator(estimator, out)
    if predictions is not None:
        _predict(estimator, files, predictions, target)
    _show(facts, json_file, seed, files)


def _world() -> int:
    import os

    return int(os.environ.get("WORLD_SIZE", "1"))


def _first_rank() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def _fit(estimator: LSHRegressor | LSHClassifier, files: list[Path], target: str) -> None:
    from lazyneuron.cli.rows import read_rows
    from lazyneuron.core.errors import ConfigError

    if _world() > 1:
        if hasattr(estimator, "predict_proba"):
            raise ConfigError("Several processes fit numbers only; run --classify in a single one.")
        _fit_ranks(estimator, files, target)
        return
    batches = (batch for path in files for batch in read_rows(path, target=target))
    if hasattr(estimator, "predict_proba"):
        import numpy as np

        parts = list(batches)
        estimator.fit(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
        return
    for x, y in batches:
        estimator.partial_fit(x, y)
    estimator.model_.build(finish=True)


def _fit_ranks(estimator: Any, files: list[Path], target: str) -> None:
    """Every rank reads its own files, and the ranks' sums are added up."""
    import os

    import torch
    import torch.distributed as dist

    from lazyneuron.cli.rows import read_rows
    from lazyneuron.route.distributed import fit_distributed

    dist.init_process_group("gloo")
    try:
        rank, size = int(os.environ["RANK"]), _world()

        def rows() -> Iterator[tuple[Any, Any]]:
            for path in files[rank::size]:
                for x, y in read_rows(path, target=target):
                    yield torch.from_numpy(x), torch.from_numpy(y).double()[:, None]

        fitted = fit_distributed(estimator._settings(), rows())
    finally:
        dist.destroy_process_group()
    estimator.model_, estimator.single_output_, estimator.n_features_in_ = fitted, True, fitted.frame.features


def _facts(estimator: Any) -> dict[str, Any]:
    errors = estimator.scale_errors_
    return {
        "estimator": type(estimator).__name__,
        "rows": estimator.model_.rows,
        "features": estimator.n_features_in_,
        "buckets": estimator.n_buckets_,
        "bucket width": estimator.bucket_width_,
        "held-out mean squared error": errors.get(estimator.bucket_width_),
    }


def _score(estimator: Any, path: Path, target: str | None) -> float:
    import numpy as np

    from lazyneuron.cli.rows import read_rows
    from lazyneuron.core.errors import ConfigError

    if target is None:
        raise ConfigError("--test needs --target, the column to compare with.")
    parts = list(read_rows(path, target=target))
    return float(estimator.score(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])))


def _predict(estimator: Any, files: list[Path], path: Path, target: str | None) -> None:
    from lazyneuron.cli.rows import read_rows
    from lazyneuron.core.record import write_text

    lines = ["prediction"]
    for file in files:
        for x, _ in read_rows(file, target=target):
            lines += [str(value) for value in estimator.predict(x).tolist()]
    write_text(path, "\n".join(lines) + "\n")


def _show(facts: dict[str, Any], json_file: Path | None, seed: int, files: list[Path]) -> None:
    import math

    from lazyneuron.cli.output import write_record
    from lazyneuron.cli.screen import print_table
    from lazyneuron.core.record import Record

    print_table(None, [{"fact": name, "value": "-" if value is None else str(value)} for name, value in facts.items()])
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()}
    write_record(json_file, Record(kind="route", data={**plain, "files": [str(f) for f in files]}, seed=seed))
