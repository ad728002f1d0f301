"""Loading a language model quantised: layer by layer, so that no more of it lies in memory than what stays."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lazyneuron.accelerate.quantised.exchange import Layer
from lazyneuron.accelerate.quantised.execution import QuantisedExecution, accelerated_blocks
from lazyneuron.accelerate.quantised.modules import Quantised
from lazyneuron.accelerate.quantised.plan import Quantisation
from lazyneuron.accelerate.quantised.transform import (
    VERB,
    Bits,
    quantisation_of,
    quantise,
)
from lazyneuron.accelerate.transform import accelerate_
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import find
from lazyneuron.core.arguments import check_batches, check_folder
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import AssumptionError, CheckpointError, ConfigError, NoBlocksError
from lazyneuron.core.hollow import empty_, random_weights
from lazyneuron.core.memory import give_back_freed
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.undo import amend_, receipts
from lazyneuron.generate.folder import build, read_config, weight_files
from lazyneuron.generate.places import Place, Weights, match
from lazyneuron.generate.ties import notes_of_copies, stored_names
from lazyneuron.generate.whole import load_whole
from lazyneuron.pretrained import build_saved, from_pretrained
from lazyneuron.save import RECEIPTS, accelerate_again_, change_hollow_, open_saved

FINAL = (
    "The weights that were quantised while the model was loaded were never kept, so there is nothing to go back to; "
    "load the folder again with weights='keep' and rest='keep'."
)
Progress = Callable[[str], None]


def load_quantised(
    folder: str | Path,
    batches: Iterable[Any] | None = None,
    *,
    weights: Bits | None = None,
    rest: Bits | None = None,
    group: int | None = None,
    progress: Progress = lambda message: None,
) -> tuple[nn.Module, Receipt | None]:
    """Load a language model and quantise each linear layer as its weights are read.

    The result is that of ``accelerate_(model, weights=..., rest=...)`` on the model that transformers loads from this
    folder, byte for byte, and is saved in the same way; only its float weights never lie in memory together.

    Args:
        folder: of a causal language model or an encoder-decoder: ``config.json`` and safetensors, in shards or not, as
            ``save_pretrained`` writes them, or what :func:`lazyneuron.save` wrote.
        batches: inputs on which the share of neurons that fire in each block is measured, through the quantised model.
        weights: of the MLP blocks, ``"keep"``, ``"int8"`` or ``"int4"``; None: as the folder was saved, or ``"int8"``.
        rest: of all other linear layers, the language-model head included; as ``weights``. A head that is tied to the
            embedding becomes a quantised copy of it; the embedding stays as it is stored.
        group: weights along a row that share a scale when they have 4 bits: 32, 64 or 128; None: as saved, else 32.
        progress: called with a sentence for each layer.

    Returns:
        The model in evaluation mode, and the receipt; None when both are kept and no block can be executed sparsely.

    Raises:
        CheckpointError: a file is missing, truncated, of another version or of a model that generates nothing, or
            weights are missing.
        ConfigError: unknown formats, or others than the folder was saved in.
        ShapeError: groups do not divide the rows of a layer.
        AssumptionError: weights that are not finite.
        NoBlocksError: there is no linear layer to quantise.
        DataError: batches that the model cannot run on.
        ImplUnavailable: transformers or the kernels are missing.

    Cost:
        Memory: that of the result, and one layer as it is stored. Time: reading the files, finding the
            blocks, and one pass of quantising.
    """
    check_folder(folder)
    if batches is not None:
        check_batches(batches)
    asked = quantisation_of(weights or "int8", rest or "int8", group or 32)
    folder = Path(folder)
    if (folder / RECEIPTS).is_file():
        model, kept = _from_saved(folder, asked, (weights, rest, group), progress)
    else:
        model, kept = _from_original(folder, asked, progress)
    model.eval()
    _check_finite(model)
    receipt = next((r for r in reversed(receipts(model)) if r.verb in (VERB, "accelerate_")), None)
    if kept:
        with contextlib.suppress(NoBlocksError):  # the quantised layers are what was asked for
            receipt = accelerate_(model, batches, progress=progress)
    if batches is not None and receipt is not None and receipt.verb == VERB:
        receipt = _measured_(model, receipt, batches)
    return model, receipt


def _check_finite(model: nn.Module) -> None:
    """Refuse what no layer was looked at for: kept weights that are not finite, of which every text is garbage."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            low, high = parameter.detach().aminmax()  # NaN where there is one
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise AssumptionError(f"{name} holds NaN or infinity; mend the weights, or copy them again.")


def _from_saved(
    folder: Path, asked: Quantisation | None, named: tuple[object, object, object], progress: Progress
) -> tuple[nn.Module, bool]:
    """A model that was saved with its changes, and whether its blocks are still to be accelerated."""
    file, content = open_saved(folder)
    done = [item for item in content["receipts"] if isinstance(item, dict) and item.get("verb") == VERB]
    if done:
        _check_same(folder, done[-1].get("config"), named)
        progress(f"Reading {folder}")
        return from_pretrained(folder), False
    model = build_saved(content, folder)
    change_hollow_(model, file, content)
    places = {name: Place.whole(file, name) for name in file.stored}
    _fill_quantised_(model, Weights(places=places), asked, progress)
    if asked is None:
        accelerate_again_(model, content)
    return model, (asked is None or asked.blocks is None) and not any(r.verb == "accelerate_" for r in receipts(model))


def _check_same(folder: Path, saved: Any, named: tuple[object, object, object]) -> None:
    """Refuse formats that a quantised folder does not have."""
    facts = saved if isinstance(saved, dict) else {}
    for what, wanted in zip(("weights", "rest", "group"), named, strict=True):
        if wanted is not None and wanted != facts.get(what):
            raise ConfigError(
                f"{folder} was saved with {what}={facts.get(what)!r}, got {wanted!r}; leave it out, or load the folder "
                "of the original to quantise it otherwise."
            )


def _from_original(folder: Path, asked: Quantisation | None, progress: Progress) -> tuple[nn.Module, bool]:
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no folder {folder}; name that of a language model, nothing is downloaded here."
        )
    config = read_config(folder)
    files = weight_files(folder)
    model = build(folder, config, files)
    found, missing, foreign = match(model, files)
    if missing and foreign:  # they may go by other names, which transformers knows
        return load_whole(folder, config, asked, missing, progress), asked is None or asked.blocks is None
    if missing:
        raise CheckpointError(
            f"{len(missing)} weights of this {type(model).__name__} are not in {folder} (such as {missing[0]}); name "
            "the folder of a whole language model."
        )
    _check_shapes(model, found, folder)
    _fill_quantised_(model, found, asked, progress)
    return model, asked is None or asked.blocks is None


def _check_shapes(model: nn.Module, found: Weights, folder: Path) -> None:
    own = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    wrong = [name for name in found.places if found.places[name].shape != tuple(own[name].shape)]
    if wrong:
        raise CheckpointError(
            f"{wrong[0]} in {folder} has the shape {found.places[wrong[0]].shape}, the config says "
            f"{tuple(own[wrong[0]].shape)}; one of them is another model's."
        )


def _fill_quantised_(model: nn.Module, found: Weights, asked: Quantisation | None, progress: Progress) -> None:
    """Quantise what is to be, layer by layer, then read the rest."""
    model.eval()
    aliases = stored_names(model, found)
    if asked is not None:
        with contextlib.ExitStack() as shown:
            shown.enter_context(random_weights(model))
            blocks = find(model, norms=False)

            def make(layers: Sequence[Layer], tell: Progress) -> dict[str, Quantised]:
                shown.close()
                return _read_layers(layers, found, aliases, tell)

            receipt = quantise(model, blocks, asked, None, progress, make=make)
        notes = (*receipt.notes, *notes_of_copies(model, aliases))
        amend_(model, dataclasses.replace(receipt, notes=notes), final=FINAL)
    progress("Reading what is not quantised")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    filled: set[int] = set()
    for name, parameter in parameters.items():
        if name in aliases and id(parameter) not in filled:
            parameter.data = found.read(aliases[name])
            filled.add(id(parameter))
    for name in found.places:
        if name in buffers:
            buffers[name].data = found.read(name)


def _read_layers(
    layers: Sequence[Layer], found: Weights, aliases: dict[str, str], progress: Progress
) -> dict[str, Quantised]:
    """Read, quantise and let go of each layer, the largest first: while most is still to come."""
    for layer in layers:
        layer.check()
    made = {}
    order = sorted(layers, key=lambda layer: -layer.module.weight.numel())  # type: ignore[operator, union-attr]
    for number, layer in enumerate(order):
        progress(f"Reading and quantising {layer.name} ({number + 1} of {len(layers)})")
        own = {name: p for name, p in layer.module._parameters.items() if p is not None}
        for name, parameter in own.items():
            parameter.data = found.read(aliases[f"{layer.name}.{name}"], fleeting=name == "weight")
        made[layer.name] = layer.make()
        for parameter in own.values():
            empty_(parameter)
        give_back_freed()
    return {layer.name: made[layer.name] for layer in layers}


def _measured_(model: nn.Module, receipt: Receipt, batches: Iterable[Any]) -> Receipt:
    """Put the shares of neurons that fire on some batches into the receipt."""
    runs = [run for run in accelerated_blocks(model) if isinstance(run, QuantisedExecution)]
    for run in runs:
        run.counts.zero_()
    with borrowed(model, observe=True):
        for batch in batches:
            call_model(model, batch)
    fired = {run.block.name: run.fired() for run in runs}
    for run in runs:
        run.counts.zero_()
    changes = []
    for change in receipt.changes:
        share = fired.get(change.block)
        shares = {} if share is None else {"shares": {"quantised": {"computed": share, "fired": share}}}
        changes.append(dataclasses.replace(change, details={**change.details, **shares}))
    receipt = dataclasses.replace(receipt, changes=tuple(changes))
    amend_(model, receipt)
    return receipt
