"""``--data FILE`` on the command line: text, JSON lines or tensors, as batches for a model."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.errors import DataError
from lazyneuron.data.json_lines import json_texts
from lazyneuron.data.lines import numbered_lines
from lazyneuron.data.tensors import TENSOR_SUFFIXES, read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lazyneuron.cli.model import LoadedModel

LONGEST = 512


def load_batches(
    path: Path, loaded: LoadedModel, *, batch_size: int = 16, batches: int | None = None, max_tokens: int = LONGEST
) -> list[Any]:
    """The file's content as batches for a model.

    Args:
        path: ``.npy``, ``.npz`` or ``.safetensors`` with tensors whose first axis is the examples; ``.jsonl`` with a
            ``"text"`` in each line, perhaps gzipped; a folder with a folder of images for each class; any other file is
            UTF-8 text, an example a line.
        loaded: the model; text needs its tokenizer.
        batch_size: examples a batch.
        batches: at most so many batches; None takes all.
        max_tokens: longer texts are cut.

    Returns:
        Padded mappings with an ``attention_mask`` for text; for tensors, mappings from argument names, or the bare
        tensor when there is one and its name is no argument of the model.

    Raises:
        DataError: the file is missing, empty, unreadable, or not what the model takes; or a size is below 1.
    """
    if batch_size < 1 or (batches is not None and batches < 1):
        raise DataError(f"There has to be at least one example a batch and one batch, got {batch_size} and {batches}.")
    most = None if batches is None else batches * batch_size
    if path.suffix in TENSOR_SUFFIXES:
        return _tensor_batches(read_tensors(path), loaded.model, path=path, size=batch_size, most=most)
    if path.is_dir():
        return _image_batches(path, loaded, size=batch_size, most=batches)
    texts = read_texts(path, most=most)
    if loaded.tokenizer is None:
        raise DataError(
            f"{loaded.name} has no tokenizer, so it cannot read the text in {path}; "
            f"give it tensors ({', '.join(TENSOR_SUFFIXES)})."
        )
    longest = min(max_tokens, loaded.tokenizer.model_max_length, _positions(loaded.model))
    parts = (texts[k : k + batch_size] for k in range(0, len(texts), batch_size))
    return [_encode(part, loaded, longest) for part in parts]


def read_texts(path: Path, *, most: int | None = None) -> list[str]:
    """The texts in a file: lines that are not blank, or the ``"text"`` of each JSON line.

    Args:
        path: ``.jsonl``, gzipped JSON lines (``.gz``), or any other file as text.
        most: no more is read than so many texts; None reads all.

    Raises:
        DataError: the file is missing, a folder, empty, binary, not UTF-8, or a line of JSON lines has no text.
    """
    is_json = path.suffix in (".jsonl", ".gz")
    return list(itertools.islice(json_texts(path) if is_json else (line for _, line in numbered_lines(path)), most))


def _positions(model: nn.Module) -> int:
    """How many tokens the model can take at most, as its configuration says."""
    config = getattr(model, "config", None)
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    # RoBERTa's table starts after the padding index
    return longest - 2 if isinstance(longest, int) and longest > 2 else 1 << 30


def _encode(texts: Sequence[str], loaded: LoadedModel, longest: int) -> dict[str, Tensor]:
    encoded = dict(
        loaded.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    )
    if getattr(getattr(loaded.model, "config", None), "is_encoder_decoder", False):
        encoded["decoder_input_ids"] = encoded["input_ids"]
        encoded["decoder_attention_mask"] = encoded["attention_mask"]
    taken = _arguments(loaded.model)
    return encoded if taken is None else {k: v for k, v in encoded.items() if k in taken}


def _arguments(model: nn.Module) -> set[str] | None:
    """Names that the model's forward takes; None when it takes any."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters) and len(list(parameters)) <= 2:
        return None
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _image_batches(path: Path, loaded: LoadedModel, *, size: int, most: int | None) -> list[Any]:
    import torch

    from lazyneuron.data.image_folder import DEVIATION, MEAN, image_folder

    config = getattr(loaded.model, "config", None)
    side = getattr(config, "image_size", None)
    taken = _arguments(loaded.model)
    if not isinstance(side, int) or (taken is not None and "pixel_values" not in taken):
        raise DataError(f"{path} is a folder, but {loaded.name} takes no images; --data takes one file for it.")
    settings = Path(loaded.name) / "preprocessor_config.json"  # how the model's own images were scaled
    facts = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    mean, deviation = tuple(facts.get("image_mean", MEAN)), tuple(facts.get("image_std", DEVIATION))
    images = image_folder(path, size=side, mean=mean, deviation=deviation)
    # spread over the classes, which lie one after another
    step = max(1, len(images) // (most * size)) if most is not None else 1
    some = [images[k][0] for k in range(0, len(images), step)[: None if most is None else most * size]]
    return [{"pixel_values": torch.stack(some[k : k + size])} for k in range(0, len(some), size)]


def _tensor_batches(
    tensors: Mapping[str, Tensor], model: nn.Module, *, path: Path, size: int, most: int | None
) -> list[Any]:
    lengths = {name or "the array": len(t) if t.dim() else 0 for name, t in tensors.items()}
    if not lengths or 0 in lengths.values():
        raise DataError(f"{path} is empty; --data needs tensors whose first axis has at least one example.")
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"The tensors in {path} have unlike numbers of examples ({lengths}); the first axis is the examples."
        )
    if any(t.is_complex() for t in tensors.values()):
        raise DataError(f"{path} holds complex numbers; --data takes real ones.")
    fitted = {name: _fit(t, model)[:most] for name, t in tensors.items()}
    count = len(next(iter(fitted.values())))
    taken = _arguments(model)
    known = taken is None or set(fitted) <= taken
    if len(fitted) == 1 and ("" in fitted or not known):
        (alone,) = fitted.values()
        return [alone[k : k + size] for k in range(0, count, size)]
    if not known:
        raise DataError(
            f"The model does not take the tensors {sorted(set(fitted) - (taken or set()))} in {path}; "
            f"it takes {sorted(taken or ())}."
        )
    return [{name: t[k : k + size] for name, t in fitted.items()} for k in range(0, count, size)]


def _fit(tensor: Tensor, model: nn.Module) -> Tensor:
    """Floating point numbers in the model's own type; integers as indices."""
    import torch

    if tensor.is_floating_point():
        kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        return tensor.to(kind)
    return tensor if tensor.dtype == torch.bool else tensor.long()
