"""Folders whose weights go by other names than the model's: transformers reads them whole, then they are quantised."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lazyneuron.accelerate.quantised.plan import Quantisation
from lazyneuron.accelerate.quantised.transform import quantise
from lazyneuron.blocks.find import find
from lazyneuron.core.errors import CheckpointError, said
from lazyneuron.core.undo import amend_
from lazyneuron.generate.folder import language_model_class


def load_whole(
    folder: Path,
    config: Any,
    asked: Quantisation | None,
    missing: Sequence[str],
    progress: Callable[[str], None],
) -> nn.Module:
    """Load by transformers, which converts names and merges tensors, and quantise in memory.

    Raises:
        CheckpointError: transformers cannot load it either, or had to make up weights.
    """
    progress(f"Reading {folder} whole")
    kind = language_model_class(config, folder)
    dtype = {"dtype" if hasattr(config, "dtype") else "torch_dtype": "auto"}
    try:
        loaded = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **dtype
        )
    except Exception as error:  # transformers documents no closed list
        raise CheckpointError(f"Cannot load the model in {folder} ({said(error)}).") from error
    model: nn.Module = loaded[0].eval()
    if loaded[1].get("missing_keys"):
        raise CheckpointError(
            f"{len(missing)} weights of this {kind.__name__} are not in {folder} (such as {missing[0]}); name the "
            "folder of a whole language model."
        )
    if asked is not None:
        receipt = quantise(model, find(model, norms=False), asked, None, progress)
        note = (
            "The folder names its weights otherwise than the model, so it was read whole before it was quantised: the "
            "memory needed was that of the original."
        )
        amend_(model, dataclasses.replace(receipt, notes=(*receipt.notes, note)))
    return model
