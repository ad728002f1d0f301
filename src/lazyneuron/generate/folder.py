"""A folder of a language model as transformers saves it: its class, its dtype, and the files of its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lazyneuron.core.errors import MALFORMED, CheckpointError, ImplUnavailable, LazyNeuronError, said
from lazyneuron.core.hollow import built_hollow, empty_, to_cpu_
from lazyneuron.core.tensor_file import TensorFile
from lazyneuron.pretrained import default_dtype

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def read_config(folder: Path) -> Any:
    """The transformers config of a folder.

    Raises:
        CheckpointError: there is none, or it is of a model that this transformers does not know, that brings its own
            code, or that was quantised by something else.
        ImplUnavailable: transformers is not installed.
    """
    transformers = transformers_here()
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json; name the folder that save_pretrained wrote.")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers documents no closed list
        raise CheckpointError(f"Cannot read the config in {folder} ({said(error)}); correct it, or update.") from error
    quantised = getattr(config, "quantization_config", None)
    if isinstance(quantised, dict) and quantised.get("quant_method") == "lazyneuron":
        raise CheckpointError(
            f"The model in {folder} is quantised and was saved by transformers; `import lazyneuron.hf`, and load it "
            "with its from_pretrained."
        )
    if quantised is not None:
        raise CheckpointError(f"The weights in {folder} are quantised by another program; name the original's folder.")
    return config


def language_model_class(config: Any, folder: Path) -> Any:
    """The class that generates with this config.

    Raises:
        CheckpointError: the model is neither a causal language model nor an encoder-decoder.
    """
    transformers = transformers_here()
    tables = transformers.models.auto.modeling_auto
    named: dict[str, str] = {}
    for table in (tables.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, tables.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        named |= dict(table)
    known = {name for names in named.values() for name in ([names] if isinstance(names, str) else names)}
    wanted = [name for name in config.architectures or () if name in known]
    fallback = named.get(config.model_type)
    if not wanted and fallback is None:
        raise CheckpointError(
            f"{folder} holds a {config.model_type} model, which does not generate text; name a causal language model "
            "or an encoder-decoder."
        )
    name = wanted[0] if wanted else fallback if isinstance(fallback, str) else fallback[0]  # type: ignore[index]
    return getattr(transformers, name)


def weight_files(folder: Path) -> dict[str, TensorFile]:
    """The tensors of a folder by name, each with the file that holds it.

    Raises:
        CheckpointError: there are none, they are pickled, or a file is missing or damaged.
    """
    if (folder / INDEX).is_file():
        try:
            places = json.loads((folder / INDEX).read_bytes())["weight_map"]
            files = {name: TensorFile(_inside(folder, name)) for name in sorted(set(places.values()))}
            lost = [name for name, file in places.items() if name not in files[file].stored]
        except CheckpointError:
            raise
        except MALFORMED as error:
            raise CheckpointError(f"{folder / INDEX} is no index of shards ({said(error)}); copy it again.") from error
        if lost:
            raise CheckpointError(
                f"{places[lost[0]]} in {folder} lacks {lost[0]}, which the index promises; copy it again."
            )
        return {name: files[file] for name, file in places.items()}
    found = [folder / SINGLE] if (folder / SINGLE).is_file() else sorted(folder.glob("*.safetensors"))
    if found:
        whole = [TensorFile(path) for path in found]
        return {name: file for file in whole for name in file.stored}
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickled:
        raise CheckpointError(
            f"{folder} has only pickled weights ({pickled[0]}), and reading these can run any code that their author "
            "put into them; convert them to safetensors first."
        )
    raise CheckpointError(f"{folder} has no weights ({SINGLE} or {INDEX}); name the folder that save_pretrained wrote.")


def _inside(folder: Path, name: object) -> Path:
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"{name!r} is no file of this folder")
    return folder / name


def build(folder: Path, config: Any, files: Mapping[str, TensorFile]) -> nn.Module:
    """The model without memory for its weights, as transformers builds it for these files.

    Raises:
        CheckpointError: transformers cannot build it.
    """
    transformers = transformers_here()
    kind = language_model_class(config, folder)
    wanted = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None) or _first_dtype(files)
    dtype = getattr(torch, wanted) if isinstance(wanted, str) else wanted
    try:
        with built_hollow(), default_dtype(dtype):
            model: nn.Module = kind._from_config(config)
        settings = transformers.GenerationConfig
        if (folder / "generation_config.json").is_file():
            model.generation_config = settings.from_pretrained(folder, local_files_only=True)
    except LazyNeuronError:
        raise
    except Exception as error:  # transformers documents no closed list
        raise CheckpointError(f"Cannot build the model of {folder} ({said(error)}).") from error
    to_cpu_(model)
    single = _single_precision(model)
    for name, parameter in model.named_parameters():
        if single.search(name):
            empty_(parameter, torch.float32)
    return model


def _first_dtype(files: Mapping[str, TensorFile]) -> torch.dtype:
    stored = (file.stored[name].dtype for name, file in files.items())
    return next((dtype for dtype in stored if dtype.is_floating_point), torch.get_default_dtype())


def _single_precision(model: nn.Module) -> re.Pattern[str]:
    """Matches the parameters that transformers keeps in float32, whatever the dtype of the others."""
    dtype = getattr(model, "dtype", torch.float32)
    names = list(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    names = names if dtype in (torch.float16, torch.bfloat16) else []
    names += list(getattr(model, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else []
    return re.compile("|".join(name.replace("*", ".*") for name in names) or r"(?!)")


def transformers_here() -> Any:
    """The installed transformers.

    Raises:
        ImplUnavailable: there is none.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImplUnavailable(
            "Reading a language model needs transformers, which is not installed; run `pip install 'lazyneuron[hf]'`."
        ) from error
    return transformers
