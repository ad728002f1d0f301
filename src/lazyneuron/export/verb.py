"""The verb: a model for another engine, in a folder that needs neither torch nor lazyneuron."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lazyneuron.accelerate.plan import plan_acceleration
from lazyneuron.accelerate.sample import MOST_BATCHES
from lazyneuron.blocks import MLPBlock
from lazyneuron.core.arguments import check_batches, check_choice, check_folder, check_model
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.export.example import example_of
from lazyneuron.export.exported import Exported
from lazyneuron.export.openvino.folder import write

Weights = Literal["keep", "bf16", "int8"]
ENGINES = ("openvino",)


def export(
    model: nn.Module,
    folder: str | Path,
    *,
    to: str = "openvino",
    batches: Iterable[Any] | None = None,
    weights: Weights = "keep",
    rest: Literal["keep", "int8"] = "keep",
    blocks: Sequence[MLPBlock] | None = None,
    every: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> Exported:
    """Write a model for another engine, with each sparse MLP block as one operator of ours.

    The operator has the kernels and the guarantee of :func:`lazyneuron.accelerate_`: neurons are skipped only when they
    are proved silent. All else is the engine's own. The model is given back as it was.

    Args:
        model: any model that the engine can convert; it is evaluated as in evaluation mode.
        folder: gets ``model.xml``, ``model.bin``, and the operator for this kind of processor and this version of the
            engine, of which ``lazyneuron.so`` is the file to name; an earlier export there is replaced.
        to: the engine, ``"openvino"``.
        batches: representative inputs. The first one is what the model is traced with; on all of them each block is
            timed as our operator and as the engine's own layers, and the slower is left out. Without them the model's
            own example is taken, and every block becomes an operator.
        weights: of the blocks: ``"keep"``, ``"bf16"`` (rounded to it) or ``"int8"`` (quantised, one scale a row).
        rest: of everything else: ``"keep"``, or ``"int8"`` by the engine's post-training quantisation, which needs
            ``batches``.
        blocks: those to export, as :func:`lazyneuron.find_blocks` found them in this model; None finds all of them.
        every: make every block an operator, whichever is faster.
        progress: called with a sentence when something takes long.

    Returns:
        What was written, and what became of each block.

    Raises:
        NoBlocksError: the model has no MLP block.
        ImplUnavailable: the engine, the kernels or a compiler is missing.
        ConfigError: an unknown engine or format, a model that the engine cannot convert, or a block that cannot be
            executed sparsely when all are asked for.
        DataError: no batch to trace with or to calibrate on, or a folder that holds something else.

    Example:
        >>> import torch, lazyneuron as lazy
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64)).eval()
        >>> lazy.export(model, "folder", to="elsewhere")
        Traceback (most recent call last):
        lazyneuron.core.errors.ConfigError: to is one of openvino, got 'elsewhere'.

    Cost:
        Once a machine about 20 seconds for the operator's compilation, then some seconds a model, and with batches
        about a second a block.
    """
    check_model(model)
    check_folder(folder)
    check_choice("to", to, ENGINES)
    check_choice("weights", weights, ("keep", "bf16", "int8"))
    check_choice("rest", rest, ("keep", "int8"))
    if batches is None and rest == "int8":
        raise DataError("rest='int8' is calibrated on real inputs; pass batches (on the command line --data).")
    if batches is not None:
        check_batches(batches)
        batches = list(itertools.islice(batches, MOST_BATCHES))
        if not batches:
            raise DataError("There are no batches to trace the model with; pass at least one, or leave them out.")
    other = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()} - {"float32"}
    if other:
        raise ConfigError(
            f"The model holds {', '.join(sorted(other))} weights; export model.float(), with weights='bf16' to round "
            "those of the blocks back without loss."
        )
    given = list(batches or ())
    example = example_of(model, given)
    plan = plan_acceleration(model, example, blocks=blocks)
    return write(model, Path(folder), plan, example, given, weights=weights, rest=rest, every=every, progress=progress)
