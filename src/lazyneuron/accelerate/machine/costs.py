"""The cost model of this machine: kept in the user's cache folder, measured when it is not there."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path as FilePath

import platformdirs
import torch

from lazyneuron.accelerate.machine.benchmark import measure
from lazyneuron.accelerate.machine.cost_model import CostModel, check_costs
from lazyneuron.accelerate.path import path_named
from lazyneuron.core.document import open_text, seal_text
from lazyneuron.core.environment import environment
from lazyneuron.core.errors import MALFORMED, CheckpointError, DataError, said
from lazyneuron.core.record import write_text
from lazyneuron.ops.native import load

FORMAT = 3
_unsaved: dict[tuple[torch.dtype, str], CostModel] = {}  # where the cache folder cannot be written


def fingerprint() -> str:
    """What a cost model depends on: processor, threads, torch and the kernels' identity."""
    facts, kernels = environment(), load.status()
    native = f"{kernels.isa}:{kernels.identity}"
    return "|".join([facts.processor, ",".join(facts.isa), f"{facts.threads} threads", facts.torch, native])


def cache_file(dtype: torch.dtype, mark: str) -> FilePath:
    """Where the cost model of a dtype lies, in the user's cache folder."""
    name = hashlib.sha256(f"{FORMAT}|{mark}".encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("lazyneuron") / f"cost-{str(dtype).removeprefix('torch.')}-{name}.json"


def timed_as(dtype: torch.dtype) -> torch.dtype:
    """The dtype whose times stand for those of ``dtype``: bfloat16 has the bytes of float16."""
    return torch.bfloat16 if dtype == torch.float16 else dtype


def are_known(dtype: torch.dtype) -> bool:
    """Is there a cost model of this machine, in the cache folder or in this process?"""
    mark = fingerprint()
    return (dtype, mark) in _unsaved or cache_file(dtype, mark).exists()


def cost_model_for(
    dtype: torch.dtype, *, anew: bool = False, progress: Callable[[float], None] = lambda done: None
) -> CostModel:
    """The cost model of this machine: from the user's cache folder, else measured now and kept there.

    Where the folder cannot be written, a warning says so and the model is kept for this process.

    Args:
        dtype: of the weights.
        anew: measure also where one is kept.
        progress: called with the share of the measuring that is done, in [0, 1].

    Raises:
        CheckpointError: the cached file is corrupt.
    """
    mark = fingerprint()
    path = cache_file(dtype, mark)
    if (dtype, mark) in _unsaved and not anew:
        return _unsaved[dtype, mark]
    if path.exists() and not anew:
        return read(path, mark)
    model = measure(dtype, fingerprint=mark, progress=progress)
    try:
        save(model, path)
    except DataError as error:
        _unsaved[dtype, mark] = model
        warnings.warn(f"The machine's cost model is kept for this process only. {error}", RuntimeWarning, stacklevel=2)
    return model


def save(model: CostModel, path: FilePath) -> None:
    """Write a cost model, whole or not at all."""
    lines = {path.name: grid for path, grid in model.lines.items()}
    write_text(path, seal_text({"format": FORMAT, **vars(model), "lines": lines}))


def read(path: FilePath, mark: str) -> CostModel:
    """Read a cost model.

    Raises:
        CheckpointError: the file is corrupt, foreign or of another machine.
    """
    try:
        raw = open_text(path.read_bytes())
        if raw.pop("format") != FORMAT or raw["fingerprint"] != mark:
            raise ValueError("it belongs to another version or machine")
        model = CostModel(
            dtype=raw["dtype"],
            fingerprint=raw["fingerprint"],
            shapes=tuple((int(d), int(h)) for d, h in raw["shapes"]),
            tokens=tuple(int(t) for t in raw["tokens"]),
            dense_us=tuple(tuple(float(v) for v in row) for row in raw["dense_us"]),
            lines={
                path_named(name): tuple(tuple((float(f), float(s)) for f, s in row) for row in grid)
                for name, grid in raw["lines"].items()
            },
            computed=tuple((float(a), float(c)) for a, c in raw["computed"]),
        )
        check_costs(model)
        return model
    except MALFORMED as error:
        raise CheckpointError(
            f"The cost model in {path} cannot be used ({said(error)}); run `lazyneuron doctor --remeasure`."
        ) from error
