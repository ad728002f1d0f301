"""MODEL on the command line: a local Hugging Face directory, or ``package.module:callable`` that returns a module."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.errors import CheckpointError, ConfigError, ImplUnavailable

if TYPE_CHECKING:
    from torch import nn

_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that is ready to run, in evaluation mode.

    Attributes:
        name: what was asked for.
        model: the module.
        tokenizer: its own tokenizer, or None when it has none.
        notes: sentences about what was not as usual.
        folder: the directory that it was read from, or None.
    """

    name: str
    model: nn.Module
    tokenizer: Any = None
    notes: tuple[str, ...] = ()
    folder: Path | None = None


def load_model(name: str, *, allow_pickle: bool = False) -> LoadedModel:
    """Load what MODEL names; nothing is downloaded. A saved acceleration is left out: commands look at, or redo it.

    Args:
        name: a folder with ``config.json`` and safetensors weights, or ``package.module:callable``, which is imported
            (the current folder included) and called without arguments; a folder that ``lazyneuron sparsify`` saved, for
            a callable as ``package.module:callable@folder``.
        allow_pickle: also read pickled weights, which can run any code that their author put into them.

    Raises:
        ConfigError: ``name`` is neither, or what it names is not there or returns no module.
        CheckpointError: the folder lacks a part, is corrupt, needs code of its own, or its weights are pickled and
            ``allow_pickle`` is off.
        ImplUnavailable: transformers is not installed.
    """
    if Path(name).is_dir():
        return _from_folder(Path(name), name, allow_pickle=allow_pickle)
    builder, _, saved = name.partition("@")
    if _CALLABLE.fullmatch(builder):
        model = _from_callable(builder).eval()
        if saved:
            from lazyneuron.save import load_

            load_(model, saved, accelerate=False)
        return LoadedModel(name=name, model=model)
    raise ConfigError(
        f"There is no model {name!r}: MODEL is a local Hugging Face directory or package.module:callable; "
        "download a model from a hub first, nothing is downloaded here."
    )


def _from_callable(name: str) -> nn.Module:
    from torch import nn

    found = imported(name, what="a callable that returns a torch.nn.Module")
    if not callable(found) or isinstance(found, nn.Module):
        raise ConfigError(f"{name!r} is a {type(found).__name__}; name a callable that returns a torch.nn.Module.")
    try:
        model = found()
    except Exception as error:  # whatever the callable does
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise ConfigError(f"{name!r} failed ({reason}); --debug shows where.") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name!r} returned a {type(model).__name__}; it has to return a torch.nn.Module.")
    return model


def imported(name: str, *, what: str) -> Any:
    """What ``package.module:attribute`` names; modules of the current folder are found too.

    Raises:
        ConfigError: the module cannot be imported, or has no such attribute.
    """
    module_name, _, attribute = name.partition(":")
    with _current_folder():
        try:
            found: Any = importlib.import_module(module_name)
        except Exception as error:  # whatever the module does when it is imported
            reason = f"{type(error).__name__}: {_first_line(error)}"
            raise ConfigError(f"Cannot import {module_name!r} ({reason}); start where it can be imported.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{module_name!r} has no {attribute!r}; name {what}.")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def _from_folder(folder: Path, name: str, *, allow_pickle: bool) -> LoadedModel:
    from lazyneuron.save import RECEIPTS

    safe = _is_safe(folder, allow_pickle=allow_pickle)
    try:
        import transformers
    except ImportError as error:
        raise ImplUnavailable(
            "Reading a Hugging Face directory needs transformers, which is not installed; "
            "run `pip install 'lazyneuron[hf]'`."
        ) from error
    with quiet(transformers):
        import lazyneuron.hf  # transformers would make up weights for a folder that it quantised by our config  # noqa: F401

        if (folder / RECEIPTS).is_file():
            from lazyneuron.pretrained import from_pretrained

            model = from_pretrained(folder, accelerate=False)
            return LoadedModel(name=name, model=model, tokenizer=tokenizer_of(transformers, folder), folder=folder)
        try:
            model, info = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=safe, trust_remote_code=False, output_loading_info=True
            )
        except Exception as error:  # transformers documents no closed list
            raise CheckpointError(f"Cannot load the model in {folder} ({_first_line(error)}).") from error
        tokenizer = tokenizer_of(transformers, folder)
    notes = _loading_notes(info)
    return LoadedModel(name=name, model=model.eval(), tokenizer=tokenizer, notes=notes, folder=folder)


def _is_safe(folder: Path, *, allow_pickle: bool) -> bool:
    """Whether the weights are safetensors; raises when they may not be read."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json; MODEL is the folder that save_pretrained wrote.")
    if any(folder.glob("*.safetensors")):
        return True
    pickled = sorted(p.name for pattern in _PICKLED for p in folder.glob(pattern))
    if not pickled:
        raise CheckpointError(
            f"{folder} has no weights (*.safetensors); MODEL is the folder that save_pretrained wrote."
        )
    if not allow_pickle:
        raise CheckpointError(
            f"{folder} has only pickled weights ({pickled[0]}), and reading these can run any code that their author "
            "put into them; convert them to safetensors, or pass --allow-pickle if you trust the author."
        )
    return False


def tokenizer_of(transformers: Any, folder: Path) -> Any:
    """The folder's tokenizer, or None when it holds none."""
    if not any((folder / f).is_file() for f in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")):
        return None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers documents no closed list
        raise CheckpointError(f"Cannot load the tokenizer in {folder} ({_first_line(error)}).") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _loading_notes(info: dict[str, Any]) -> tuple[str, ...]:
    missing = sorted(info.get("missing_keys") or ())
    if not missing:
        return ()
    first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return (f"{len(missing)} weights are not in the file and were set at random: {first}.",)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """No warnings and no progress bars of transformers; its settings come back afterwards."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
