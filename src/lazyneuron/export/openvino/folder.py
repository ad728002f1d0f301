"""The folder that OpenVINO reads: model.xml, model.bin and the extension."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyneuron.accelerate.plan import Plan
from lazyneuron.accelerate.sample import block_inputs
from lazyneuron.blocks import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import DataError, LazyNeuronError, NoBlocksError
from lazyneuron.core.receipt import BlockChange
from lazyneuron.core.record import made_folder, to_disk
from lazyneuron.export.exported import Exported
from lazyneuron.export.openvino.choice import times_us
from lazyneuron.export.openvino.convert import converted, core_with, precision
from lazyneuron.export.openvino.extension import LOADER, OPERATOR, extension
from lazyneuron.export.openvino.layout import PackedOperator, packed_operator
from lazyneuron.export.openvino.quantise import quantised

FILES = ("model.xml", "model.bin", LOADER, OPERATOR)
_NOT_ASKED = "No batches were given to time it on."


def write(
    model: nn.Module,
    folder: Path,
    plan: Plan,
    example: Any,
    batches: Sequence[Any],
    *,
    weights: str,
    rest: str,
    every: bool,
    progress: Callable[[str], None],
) -> Exported:
    """Convert, decide block by block, quantise the rest, write, compare with torch; see :func:`lazyneuron.export`."""
    check_target(folder)
    progress("Compiling the extension (once a machine and version)")
    library = extension()
    import openvino

    packed, changes = _packed(plan, weights)
    if batches and not every:
        progress("Timing each block")
        packed, changes = _faster(model, packed, changes, batches, library, weights=weights, rest=rest)
    progress("Converting the model")
    whole = converted(model, packed, example, library)
    feeds = [feed_of(batch, whole) for batch in batches or [example]]
    if rest == "int8":
        progress("Quantising the rest")
        whole = quantised(whole, feeds)
    error = _output_error(model, whole, batches or [example], feeds, library, precision(weights))
    _save(whole, library, folder)
    config = {"to": "openvino", "weights": weights, "rest": rest, "every": every, "openvino": openvino.get_version()}
    return Exported(folder=folder, config=config, changes=tuple(changes), output_error=error)


def check_target(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export.

    Raises:
        DataError: it does, or is a file.
    """
    if not folder.exists():
        return
    others = [folder.name] if not folder.is_dir() else sorted({p.name for p in folder.iterdir()} - set(FILES))
    if others:
        raise DataError(f"{folder} holds other files ({others[0]}); export to a new folder, or to an earlier export.")


def _packed(plan: Plan, weights: str) -> tuple[list[tuple[MLPBlock, PackedOperator]], list[BlockChange]]:
    packed, changes = [], []
    for block in plan.matched:
        try:
            packed.append((block, packed_operator(block, weights)))
        except LazyNeuronError as error:
            changes.append(BlockChange(block=block.name, action="skipped", reason=str(error)))
            continue
        added = {"bytes": int(packed[-1][1].weights.nbytes)}
        changes.append(BlockChange(block=block.name, action="exported", reason=_NOT_ASKED, details=added))
    changes += plan.skipped
    if not packed:
        raise NoBlocksError(
            "No block of this model can be exported as a sparse operator. " + " ".join(c.reason for c in changes[:3])
        )
    return packed, changes


def _faster(
    model: nn.Module,
    packed: Sequence[tuple[MLPBlock, PackedOperator]],
    changes: Sequence[BlockChange],
    batches: Sequence[Any],
    library: Path,
    *,
    weights: str,
    rest: str,
) -> tuple[list[tuple[MLPBlock, PackedOperator]], list[BlockChange]]:
    """The blocks that are faster as ours, and what was measured."""
    inputs = block_inputs(model, [block for block, _ in packed], batches)
    kept, told = [], {change.block: change for change in changes}
    for block, operator in packed:
        ours, own = times_us(block, operator, inputs[block.name], library, weights=weights, rest=rest)
        faster = ours <= own
        if faster:
            kept.append((block, operator))
        before = told[block.name]
        measured = {"ours_us": ours, "openvino_us": own, "tokens": len(inputs[block.name])}
        told[block.name] = dataclasses.replace(
            before,
            action="exported" if faster else "dense",
            reason=f"{'Sparse' if faster else 'Dense'} is faster here.",
            details={**before.details, **measured},
        )
    return kept, list(told.values())


def feed_of(batch: Any, model: Any) -> dict[str, np.ndarray]:
    """A batch as OpenVINO's model takes it, by the names of its inputs.

    Raises:
        DataError: it names an input that the model was not traced with, or lacks one.
    """
    names = [port.any_name for port in model.inputs]
    if isinstance(batch, Tensor):
        batch = (batch,)
    if isinstance(batch, tuple):
        batch = dict(zip(names, batch, strict=True))
    tensors: Mapping[str, Any] = {k: v for k, v in batch.items() if isinstance(v, Tensor)}
    if set(tensors) != set(names):
        raise DataError(
            f"All batches have the inputs of the first ({', '.join(names)}), got {', '.join(tensors)}; make them alike."
        )
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@torch.no_grad()
def _output_error(
    model: nn.Module, whole: Any, batches: Sequence[Any], feeds: Sequence[Any], library: Path, precision: str
) -> dict[str, float]:
    """Of the first output, on batches in turn; what was traced with one shape is run on those of all others."""
    compiled = core_with(library).compile_model(whole, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    largest = squares = scale = 0.0
    count = 0
    with borrowed(model, observe=True, evaluate=True):
        for batch, feed in zip(batches, feeds, strict=True):
            wanted = _first(call_model(model, batch)).double()
            got = torch.from_numpy(np.asarray(compiled(feed)[0])).double()
            if got.shape != wanted.shape:
                raise DataError(
                    f"OpenVINO's output has the shape {tuple(got.shape)} where torch's has {tuple(wanted.shape)}, so "
                    "the model cannot be traced with one batch for another; pass batches of one shape."
                )
            apart = got - wanted
            largest = max(largest, float(apart.abs().max()) if apart.numel() else 0.0)
            squares += float(apart.square().sum())
            scale += float(wanted.square().sum())
            count += wanted.numel()
    rms = (scale / max(count, 1)) ** 0.5 or 1.0
    return {"largest": largest / rms, "rms": (squares / max(count, 1)) ** 0.5 / rms}


def _first(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, Mapping) else output[0]
    return output


def _save(whole: Any, library: Path, folder: Path) -> None:
    """All files or none; an earlier export is replaced at the end."""
    import openvino

    try:
        with made_folder(folder.parent), tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as place:
            new, old = Path(place, "new"), Path(place, "old")
            new.mkdir()
            openvino.save_model(whole, new / FILES[0], compress_to_fp16=False)
            for name in (LOADER, OPERATOR):
                shutil.copyfile(library.parent / name, new / name)
            for path in (*(new / name for name in FILES), new):
                to_disk(path)
            if folder.exists():
                os.replace(folder, old)
            os.replace(new, folder)
            to_disk(folder.parent)
    except OSError as error:
        raise DataError(f"Cannot write {folder} ({error.strerror}); choose a folder that you can write.") from error
