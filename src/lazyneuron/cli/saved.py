"""A changed model as a folder that the other commands read: weights, receipts, and what describes the original."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from torch import nn

    from lazyneuron.cli.model import LoadedModel
    from lazyneuron.core.receipt import Receipt

RECEIPTS = "receipts.json"
_DESCRIBE = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
    "spiece.model", "chat_template.jinja",
)  # fmt: skip


def save_folder(loaded: LoadedModel, folder: Path, receipt: Receipt) -> str:
    """Save a model with this receipt and those that it was loaded with.

    Args:
        loaded: the model and where it came from.
        folder: made if it is missing.
        receipt: of the last change.

    Returns:
        What to pass as MODEL to read it.

    Raises:
        DataError: the folder is the model's own, or cannot be written.
    """
    from lazyneuron.checkpoint import save

    if loaded.folder is not None and folder.resolve() == loaded.folder.resolve():
        raise DataError(f"{folder} is the model's own folder; save to another one.")
    save(loaded.model, folder, *loaded.receipts, receipt)
    described = [] if loaded.folder is None else [loaded.folder / name for name in _DESCRIBE]
    for path in described:
        if path.is_file():
            try:
                shutil.copyfile(path, folder / path.name)
            except OSError as error:
                raise DataError(f"Cannot write to {folder} ({error.strerror}); choose another folder.") from error
    builder = loaded.name.partition("@")[0] if ":" in loaded.name else None
    return str(folder) if builder is None else f"{builder}@{folder}"


def bring_back_(model: nn.Module, folder: Path) -> tuple[Receipt, ...]:
    """Make the saved changes on a model that was built anew, and load the saved weights.

    Raises:
        CheckpointError: the folder holds no saved model, or it does not fit.
    """
    from lazyneuron.checkpoint import load_

    return load_(model, folder)


def build_from_config(transformers: Any, folder: Path) -> nn.Module:
    """The model that a folder's ``config.json`` describes, with random weights.

    Raises:
        CheckpointError: transformers cannot build it.
    """
    import torch

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: nn.Module = transformers.AutoModel.from_config(config, trust_remote_code=False)
    except Exception as error:  # transformers documents no closed list
        raise CheckpointError(f"Cannot build the model that {folder / 'config.json'} describes ({error}).") from error
    dtype = getattr(config, "dtype", None)
    return model.to(dtype) if isinstance(dtype, torch.dtype) else model
