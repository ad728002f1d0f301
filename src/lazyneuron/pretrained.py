"""A saved transformers model with its changes, from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lazyneuron.core.errors import CheckpointError, ImplUnavailable, LazyNeuronError, said
from lazyneuron.save import bring_back_, read_saved


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
    """
    state, content = read_saved(folder)
    model = _built(content, folder)
    _cast_(model, state)
    bring_back_(model, state, content, accelerate=accelerate)
    return model.eval()


def _built(content: Mapping[str, Any], folder: str | Path) -> nn.Module:
    """The model that the saved config describes, with random weights."""
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
        model: Any = getattr(transformers, name)(config)
        if "generation_config" in content:
            model.generation_config = transformers.GenerationConfig.from_dict(content["generation_config"])
        whole: nn.Module = model
    except LazyNeuronError:
        raise
    except Exception as error:  # transformers documents no closed list
        raise CheckpointError(f"Cannot build the model that is saved in {folder} ({said(error)}).") from error
    return whole


def _cast_(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give every parameter and buffer the dtype that it was saved in; what is not saved keeps its own."""
    for named in (model.named_parameters(), model.named_buffers()):
        for name, tensor in named:
            if name in state:
                tensor.data = tensor.data.to(state[name].dtype)
