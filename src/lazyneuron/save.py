"""Save a changed model and its receipts, and bring both back: safetensors and JSON, never pickle."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

import lazyneuron.accelerate
import lazyneuron.induce
import lazyneuron.route  # these three register recipes and verbs  # noqa: F401
from lazyneuron.core.arguments import check_folder, check_model, check_receipts
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.core.hollow import random_weights
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.replay import REPLAYS, Replay, replay_of
from lazyneuron.core.sealed import open_sealed, read_sealed, write_sealed
from lazyneuron.core.state import check_state, load_state_, saved_state
from lazyneuron.core.tensor_file import TensorFile
from lazyneuron.core.undo import active_changes, receipts, restore_

RECEIPTS = "receipts.json"
_WEIGHTS = "model"
Weights = TypeVar("Weights")


def save(model: nn.Module, folder: str | Path, *receipts: Receipt, beside: Mapping[str, bytes] | None = None) -> None:
    """Write a model's state and the receipts of all its changes; a kill at any moment leaves the old or the new ones.

    Args:
        model: the model; ``state_dict`` keys are those of the unchanged model and of what its changes added. The config
            of a transformers model is saved too, also as ``config.json`` for other programs.
        folder: made if it is missing; its other files stay.
        receipts: those that the model carries are known and need not be given.
        beside: other files to write with them, by name, such as a tokenizer's.

    Raises:
        ConfigError: an argument is of the wrong kind.
        DataError: the folder cannot be written.
        CheckpointError: the state holds something else than tensors.
        ConfigError: a receipt is of a change that is not in force on this very model, or a change has no receipt.
    """
    check_model(model)
    check_folder(folder)
    check_receipts(receipts)
    made = _all_receipts(model, receipts)
    content: dict[str, Any] = {"receipts": [receipt.to_data() for receipt in made]}
    files = dict(beside or {})
    for name, config in (("config", _config(model)), ("generation_config", _text(model, "generation_config"))):
        if config is not None:
            content[name] = json.loads(config)
            files[f"{name}.json"] = config.encode()
    write_sealed(Path(folder), RECEIPTS, content, {_WEIGHTS: saved_state(model)}, beside=files)


def load_(model: nn.Module, folder: str | Path, *, accelerate: bool = True) -> tuple[Receipt, ...]:
    """Make the saved changes on a fresh model and load the saved weights into it; all of it or nothing.

    Args:
        model: built as the saved one was before its changes.
        folder: what :func:`save` wrote.
        accelerate: make a saved ``accelerate_`` again, for this machine; False leaves it out.

    Returns:
        New receipts, one for each change, in order.

    Raises:
        CheckpointError: a file is missing, damaged or does not fit the model.
        ImplUnavailable: the acceleration names an implementation that cannot run here.

    Cost:
        A second copy of the model's tensors until the end, to go back to; the saved ones are mapped from their file.
    """
    check_model(model)
    state, content = read_saved(folder)
    return bring_back_(model, state, content, accelerate=accelerate)


def read_saved(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and the other content that :func:`save` wrote, checked but not yet made sense of.

    Raises:
        ConfigError: ``folder`` is neither text nor a path.
        CheckpointError: a file is missing or damaged.
    """
    check_folder(folder)
    content, tensors = read_sealed(Path(folder), RECEIPTS, what="saved model", unsealed=_WEIGHTS)
    return _made_sense_of(content, tensors, folder)


def _made_sense_of(content: Any, weights: Mapping[str, Weights], folder: str | Path) -> tuple[Weights, dict[str, Any]]:
    if isinstance(content, list):  # an earlier version's
        content = {"receipts": content}
    if not isinstance(content, dict) or not isinstance(content.get("receipts"), list) or _WEIGHTS not in weights:
        raise CheckpointError(f"{Path(folder) / RECEIPTS} holds no receipts; pass a folder that save wrote.")
    return weights[_WEIGHTS], content


def bring_back_(
    model: nn.Module, state: dict[str, Tensor], content: Mapping[str, Any], *, accelerate: bool
) -> tuple[Receipt, ...]:
    """What :func:`load_` does with what :func:`read_saved` read."""
    replays = _replays(content)
    done: list[Receipt] = []
    before: dict[str, Tensor] = {}

    def make_again(*, machine: bool) -> None:
        for receipt, replay in replays:
            if replay.again is not None and replay.machine == machine:
                done.append(replay.make(model, receipt))

    try:
        make_again(machine=False)
        check_state(model, state)
        before = {key: value.detach().clone() for key, value in model.state_dict().items() if key in state}
        load_state_(model, state)
        if accelerate:
            make_again(machine=True)
    except BaseException:
        with contextlib.suppress(CheckpointError):  # where writing is refused, nothing was written
            load_state_(model, before)
        for receipt in reversed(done):
            restore_(model, receipt)
        raise
    return tuple(done)


def open_saved(folder: str | Path) -> tuple[TensorFile, dict[str, Any]]:
    """As :func:`read_saved`, but the weights are read when they are asked for.

    Raises:
        ConfigError: ``folder`` is neither text nor a path.
        CheckpointError: a file is missing or damaged.
    """
    check_folder(folder)
    content, files = open_sealed(Path(folder), RECEIPTS, what="saved model", unsealed=_WEIGHTS)
    return _made_sense_of(content, files, folder)


def change_hollow_(model: nn.Module, file: TensorFile, content: Mapping[str, Any]) -> None:
    """Make the saved changes that no machine decides on a model without weights (`core/hollow.py`).

    Raises:
        CheckpointError: they, or the weights, do not fit the model.
    """
    with random_weights(model):
        for receipt, replay in _replays(content):
            if replay.again is not None and not replay.machine:
                replay.make(model, receipt)
    check_state(model, file.outlines())


def accelerate_again_(model: nn.Module, content: Mapping[str, Any]) -> None:
    """Make the saved changes that are made for one machine, on a model that has its weights.

    Raises:
        CheckpointError: they do not fit the model.
        ImplUnavailable: one names an implementation that cannot run here.
    """
    for receipt, replay in _replays(content):
        if replay.again is not None and replay.machine:
            replay.make(model, receipt)


def _replays(content: Mapping[str, Any]) -> list[tuple[Receipt, Replay]]:
    saved = [Receipt.from_json(json.dumps(item)) for item in content["receipts"]]
    return [(receipt, replay_of(receipt)) for receipt in saved]


def _all_receipts(model: nn.Module, given: tuple[Receipt, ...]) -> tuple[Receipt, ...]:
    in_force = receipts(model)
    inside = [name for name, part in model.named_modules() if name and active_changes(part)]
    if inside:
        raise ConfigError(
            f"A change was made on {inside[0]!r}, a part of this {type(model).__name__}, and would be lost; save that "
            "part, or make the change on the whole model."
        )
    known = {receipt.id for receipt in in_force}
    foreign = [r for r in given if r.id not in known and (r.verb not in REPLAYS or REPLAYS[r.verb].again)]
    if foreign:
        raise ConfigError(
            f"The change {foreign[0].verb} {foreign[0].id} is not in force on this {type(model).__name__}; save the "
            "very model that was changed, without the receipts of what was restored."
        )
    return in_force


def _text(owner: Any, name: str) -> str | None:
    write = getattr(getattr(owner, name, None), "to_json_string", None)
    return write() if callable(write) else None


def _config(model: nn.Module) -> str | None:
    """The JSON text of a transformers config that builds the model as it was before its changes."""
    text = _text(model, "config")
    if text is None:
        return None
    facts = {**json.loads(text), "architectures": [type(model).__name__]}
    dtype = getattr(model, "dtype", None)
    return json.dumps(facts | ({} if dtype is None else {"dtype": str(dtype).removeprefix("torch.")}), indent=2) + "\n"
