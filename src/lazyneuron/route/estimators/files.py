"""Fitted bucket estimators in files: safetensors and JSON, never pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lazyneuron.core.errors import MALFORMED, CheckpointError, ConfigError, ImplUnavailable, said
from lazyneuron.ops.buckets.reference import moment_width
from lazyneuron.route.affine_hash import AffineHash
from lazyneuron.route.bucket_regression import BucketRegression
from lazyneuron.route.estimators.lsh import LSHClassifier, LSHRegressor
from lazyneuron.route.moments import Frame
from lazyneuron.route.pyramid import Pyramid
from lazyneuron.route.table_file import read_folder, write_folder

_KINDS = {"LSHRegressor": LSHRegressor, "LSHClassifier": LSHClassifier}
KIND = "bucket estimator"


def save_estimator(estimator: LSHRegressor | LSHClassifier, folder: str | Path) -> None:
    """Write a fitted estimator into a folder; it can be fitted further after loading.

    Raises:
        ConfigError: it is not fitted, is of another class, or has labels that JSON does not hold.
        DataError: the folder cannot be written.
    """
    name = type(estimator).__name__
    if name not in _KINDS or not hasattr(estimator, "model_"):
        raise ConfigError(f"A fitted {' or '.join(_KINDS)} is saved, got {estimator!r}.")
    model = estimator.model_.built()
    tensors: dict[str, Tensor] = {"mean": model.frame.mean, "scale": model.frame.scale}
    for number, p in enumerate(model.pyramids):
        parts = {**p.affine.to_tensors(), "vectors": p.table.vectors, "sums": p.sums[: len(p.table)]}
        tensors |= {f"table{number}.{key}": value.clone() for key, value in parts.items()}
    if model.held_out is not None:
        tensors |= {"held.x": model.held_out[0], "held.y": model.held_out[1]}
    facts: dict[str, Any] = {
        "estimator": name,
        "parameters": estimator.get_params(),
        "features": estimator.n_features_in_,
        "degree": model.frame.degree,
        "outputs": model.frame.outputs,
        "bases": [p.base for p in model.pyramids],
        "shift": model.shift,
        "rows": model.rows,
        "errors": [[shift, error] for shift, error in model.errors.items()],
    }
    if isinstance(estimator, LSHClassifier):
        if estimator.classes_.dtype.kind not in "biufU":
            raise ConfigError(f"Labels of dtype {estimator.classes_.dtype} are not saved; use numbers or strings.")
        facts |= {"classes": estimator.classes_.tolist(), "dtype": estimator.classes_.dtype.str}
    else:
        facts["single_output"] = estimator.single_output_
    write_folder(Path(folder), kind=KIND, tensors=tensors, facts=facts)


def load_estimator(folder: str | Path) -> LSHRegressor | LSHClassifier:
    """The estimator that :func:`save_estimator` wrote; its predictions are the same.

    Raises:
        CheckpointError: a file is missing, corrupt or foreign.
    """
    tensors, facts = read_folder(Path(folder), kind=KIND)
    try:
        estimator = _KINDS[facts["estimator"]](**facts["parameters"])
        estimator.n_features_in_ = int(facts["features"])
        if isinstance(estimator, LSHClassifier):
            estimator.classes_ = np.array(facts["classes"], dtype=np.dtype(facts["dtype"]))
        else:
            estimator.single_output_ = bool(facts["single_output"])
        estimator.model_ = _model(estimator._settings(), tensors, facts)
        if estimator.n_features_in_ != estimator.model_.frame.features:
            raise ValueError("its features do not fit its buckets")
        estimator.predict(np.zeros((1, estimator.n_features_in_)))
    except ImplUnavailable:
        raise
    except MALFORMED as error:
        raise CheckpointError(f"The estimator in {folder} is damaged ({said(error)}); save it again.") from error
    return estimator


def _model(settings: Any, tensors: dict[str, Tensor], facts: dict[str, Any]) -> BucketRegression:
    model = BucketRegression(settings)
    frame = Frame(
        mean=tensors["mean"], scale=tensors["scale"], outputs=int(facts["outputs"]), degree=int(facts["degree"])
    )
    width = moment_width(frame.features, frame.outputs, degree=frame.degree)
    for number, base in enumerate(facts["bases"]):
        parts = {key.partition(".")[2]: t for key, t in tensors.items() if key.startswith(f"table{number}.")}
        if parts["sums"].shape != (len(parts["vectors"]), width) or not bool((parts["sums"][:, 0] > 0).all()):
            raise ValueError("its sums do not fit its buckets")
        affine = AffineHash.from_tensors(parts)
        pyramid = Pyramid(affine, frame, capacity=settings.capacity, impl=settings.impl, base=int(base))
        pyramid.merge(parts["vectors"], parts["sums"], base=int(base))
        if len(pyramid.table) != len(parts["vectors"]):
            raise ValueError("it names one bucket twice")
        model.pyramids.append(pyramid)
    if "held.x" in tensors:
        model.held_out = tensors["held.x"], tensors["held.y"]
    model.rows, model.shift = int(facts["rows"]), facts["shift"]
    model.errors = {shift: float(error) for shift, error in facts["errors"]}
    model.chosen = True
    return model
