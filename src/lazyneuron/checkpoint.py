"""Save a changed model and its receipts, and bring both back: safetensors and JSON, never pickle."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from lazyneuron.accelerate.transform import accelerate_again_
from lazyneuron.core.arguments import check_folder, check_model, check_receipts
from lazyneuron.core.errors import CheckpointError, ConfigError, DataError, NoBlocksError
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.record import write_text
from lazyneuron.core.undo import restore_
from lazyneuron.induce.compact import compact_again_
from lazyneuron.induce.sparsify import recipe_from_data, sparsify_
from lazyneuron.route.ffn import RouteFFN

WEIGHTS, RECEIPTS = "model.safetensors", "receipts.json"


def save(model: nn.Module, folder: str | Path, *receipts: Receipt) -> None:
    """Write a model's state and the receipts of its changes.

    Args:
        model: the model; ``state_dict`` keys are those of the unchanged model and of what its changes added.
        folder: made if it is missing.
        receipts: in the order in which the changes were made.

    Raises:
        ConfigError: an argument is of the wrong kind.
        DataError: the folder cannot be written.
    """
    check_model(model)
    check_folder(folder)
    check_receipts(receipts)
    folder = Path(folder)
    state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    storages: dict[int, str] = {}
    for key, value in list(state.items()):  # tied tensors are stored once; load_ ties them again by the model itself
        first = storages.setdefault(value.data_ptr(), key) if value.numel() else key
        if first != key and state[first].shape == value.shape:
            del state[key]
    temporary = folder / f".{WEIGHTS}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(state, temporary)
        temporary.replace(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"Cannot write to {folder} ({error}); choose a folder that you can write.") from error
    finally:
        temporary.unlink(missing_ok=True)
    write_text(folder / RECEIPTS, json.dumps([json.loads(receipt.to_json()) for receipt in receipts], indent=1))


def load_(model: nn.Module, folder: str | Path) -> tuple[Receipt, ...]:
    """Make the saved changes on a fresh model and load the saved weights into it.

    Args:
        model: built as the saved one was before its changes.
        folder: what :func:`save` wrote.

    Returns:
        New receipts, one for each change, in order. An ``accelerate_`` is made again for this machine.

    Raises:
        CheckpointError: a file is missing, corrupt or does not fit the model; the model's weights are then untouched.
    """
    check_model(model)
    check_folder(folder)
    folder = Path(folder)
    try:
        state = safetensors.torch.load_file(folder / WEIGHTS)
        raw = json.loads((folder / RECEIPTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} does not hold a saved model ({error}); pass a folder that save wrote."
        ) from error
    if not isinstance(raw, list):
        raise CheckpointError(f"{folder / RECEIPTS} is not a list of receipts; pass a folder that save wrote.")
    saved = [Receipt.from_json(json.dumps(item)) for item in raw]
    first: list[Receipt] = []
    try:
        for receipt in saved:
            if receipt.verb not in ("accelerate_", "project_", "revive_"):  # what these two moved is in the weights
                first.append(_again(model, receipt))
        _check_state(model, state)
    except BaseException:
        for receipt in reversed(first):
            restore_(model, receipt)
        raise
    with torch.no_grad():
        model.load_state_dict(state, strict=False)
    return (*first, *(_again(model, receipt) for receipt in saved if receipt.verb == "accelerate_"))


def _check_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    own = model.state_dict()
    wrong = [key for key in state if key not in own or own[key].shape != state[key].shape]
    held = {own[key].data_ptr() for key in state if key in own}
    missing = [key for key, value in own.items() if key not in state and value.data_ptr() not in held]
    if wrong or missing:
        raise CheckpointError(
            f"The saved weights do not fit this model: {len(wrong)} do not belong to it (such as {wrong[:1]}) and "
            f"{len(missing)} are missing (such as {missing[:1]}); build the model as the saved one was built."
        )


def _again(model: nn.Module, receipt: Receipt) -> Receipt:
    if receipt.verb == "sparsify_":
        data = dict(receipt.config)
        recipe = RouteFFN.from_data(data) if data.get("config") == "RouteFFN" else recipe_from_data(data)
        try:
            return sparsify_(model, recipe)
        except (ConfigError, NoBlocksError) as error:
            raise CheckpointError(f"The saved recipe does not fit this model: {error}") from error
    if receipt.verb == "compact_":
        return compact_again_(model, receipt)
    if receipt.verb == "accelerate_":
        return accelerate_again_(model, receipt)
    raise CheckpointError(f"The saved change {receipt.verb!r} is not known to this version; update lazyneuron.")
