"""A changed model as a folder that the other commands read: weights, receipts, and what describes the original."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lazyneuron.core.errors import DataError

if TYPE_CHECKING:
    from lazyneuron.cli.model import LoadedModel

_DESCRIBE = (
    "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
    "spiece.model", "chat_template.jinja",
)  # fmt: skip


def check_out(source: Path | None, folder: Path | None) -> None:
    """Make sure, before any work is done, that a model can be saved to a folder.

    Args:
        source: the folder that the model comes from, or None.
        folder: None if it was not asked for.

    Raises:
        DataError: the folder is the model's own, or holds files that describe another model.
    """
    if folder is None or source is None:
        return
    if folder.resolve() == source.resolve():
        raise DataError(f"{folder} is the model's own folder; save to another one.")
    for name, content in _described(source).items():
        if (folder / name).is_file() and (folder / name).read_bytes() != content:
            raise DataError(f"{folder / name} is another model's; save to another folder, or remove that one.")


def save_folder(loaded: LoadedModel, folder: Path) -> str:
    """Save a model with its changes.

    Args:
        loaded: the model and where it came from.
        folder: made if it is missing.

    Returns:
        What to pass as MODEL to read it.

    Raises:
        DataError: the folder holds another model's files, or cannot be written.
    """
    from lazyneuron.save import save

    check_out(loaded.folder, folder)
    save(loaded.model, folder, beside=_described(loaded.folder))
    builder = loaded.name.partition("@")[0] if ":" in loaded.name else None
    return str(folder) if builder is None else f"{builder}@{folder}"


def _described(source: Path | None) -> dict[str, bytes]:
    """The files that tell what goes in and out of the model; its config is a part of what is saved anyway."""
    files = [] if source is None else [source / name for name in _DESCRIBE]
    return {path.name: path.read_bytes() for path in files if path.is_file()}
