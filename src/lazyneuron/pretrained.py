"""A saved transformers model with its changes, from its folder alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lazyneuron.core.errors import CheckpointError, ImplUnavailable, LazyNeuronError, said
from lazyneuron.core.hollow import built_hollow, to_cpu_
from lazyneuron.core.state import load_state_
from lazyneuron.core.tensor_file import TensorFile, in_own_pages
from lazyneuron.save import accelerate_again_, change_hollow_, open_saved


def from_pretrained(folder: str | Path, *, accelerate: bool = True) -> nn.Module:
    """Build the transformers model that :func:`lazyneuron.save` saved, with its changes made again.

    Args:
        folder: what ``save`` wrote, of a model that has a transformers config.
        accelerate: make a saved ``accelerate_`` again, for this machine; False leaves it out.

    Returns:
        The model in evaluation mode, of the class and with the dtypes that it was saved with;
        :func:`lazyneuron.receipts` names its changes.

    Raises:
        CheckpointError: a file is missing or damaged, or the model is not one that transformers builds.
        ImplUnavailable: transformers is not installed, or the acceleration names an implementation that cannot run
            here.

    Cost:
        Memory: that of the model as it was saved; quantised weights are read as they are, and no others are made first.
    """
    file, content = open_saved(folder)
    model = build_saved(content, folder)
    change_hollow_(model, file, content)
    fill_(model, file)
    if accelerate:
        accelerate_again_(model, content)
    return model.eval()


def build_saved(content: Mapping[str, Any], folder: str | Path) -> nn.Module:
    """The model that the saved config describes, without memory for its weights (`core/hollow.py`).

    Raises:
        CheckpointError: there is no config, or transformers cannot build the model.
        ImplUnavailable: transformers is not installed.
    """
    with built_hollow():
        model = _built(content, folder)
    to_cpu_(model)
    return model


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """Within this, new floating-point tensors have this dtype, as transformers builds models; None changes nothing."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(before if dtype is None else dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def fill_(model: nn.Module, file: TensorFile) -> None:
    """Read a file's tensors into a model that has none, each with the dtype that it was saved in.

    Raises:
        CheckpointError: the file cannot be read, or what a module keeps besides tensors does not fit.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    others = {}
    for name, stored in file.stored.items():
        if name in parameters:
            parameters[name].data = file.read(name)
        elif name not in buffers:
            others[name] = file.read(name)
        elif buffers[name].dtype != stored.dtype or 0 in buffers[name].stride():
            buffers[name].data = file.read(name)
        elif buffers[name].is_contiguous():
            file.read(name, into=buffers[name])  # memory that large pages were asked for
        else:
            fleeting = in_own_pages(stored.shape, stored.dtype)
            buffers[name].copy_(file.read(name, into=fleeting))  # rows that lie beside their scales
    load_state_(model, others)


def _built(content: Mapping[str, Any], folder: str | Path) -> nn.Module:
    """The model that the saved config describes."""
    try:
        import transformers
    except ImportError as error:
        raise ImplUnavailable(
            "Building a saved transformers model needs transformers, which is not installed; "
            "run `pip install 'lazyneuron[hf]'`."
        ) from error
    if "config" not in content and not (Path(folder) / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no transformers config; build the model as the saved one was built, and call load_."
        )
    try:
        if "config" not in content:  # saved by the command line of an earlier version
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            auto: Any = transformers.AutoModel
            built: nn.Module = auto.from_config(config, trust_remote_code=False)
            return built
        facts = dict(content["config"])
        (name,) = facts["architectures"]
        config = transformers.CONFIG_MAPPING[facts["model_type"]].from_dict(facts)
        with default_dtype(getattr(torch, str(facts.get("dtype")), None)):
            model: Any = getattr(transformers, name)(config)
        if "generation_config" in content:
            model.generation_config = transformers.GenerationConfig.from_dict(content["generation_config"])
        whole: nn.Module = model
    except LazyNeuronError:
        raise
    except Exception as error:  # transformers documents no closed list
        raise CheckpointError(f"Cannot build the model that is saved in {folder} ({said(error)}).") from error
    return whole
