"""What transformers' own saving would lose of a changed model: said in the config where it can be, else said aloud."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lazyneuron.blocks.identify import identify
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.undo import Transaction

_FIELDS = ("hidden_act", "hidden_activation", "activation_function", "activation")  # names that configs give it


class SavePretrained:
    """Stands for ``save_pretrained`` of a changed model, through which Trainer and SentenceTransformer save as well.

    Where ReLU in every block is all that was changed, and the config has a name for it, that name is saved; anything
    else is saved as ever, with a warning.
    """

    def __init__(self, module: nn.Module, lost: tuple[Receipt, ...], *, only_activations: bool) -> None:
        self.module = module
        self.lost = lost
        self.only_activations = only_activations

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Save as the class does."""
        module: Any = self.module
        own, said = module.config, _config_that_says(module) if self.only_activations else None
        if said is None:
            changes = ", ".join(f"{r.verb} {r.config.get('config', '')}".strip() for r in self.lost)
            warnings.warn(
                f"save_pretrained writes the weights of this {type(module).__name__} without what {changes} changed, "
                "so from_pretrained would build another model; use `save` and `from_pretrained` of lazyneuron.",
                UserWarning,
                stacklevel=2,
            )
        try:
            module.config = own if said is None else said
            return type(module).save_pretrained(module, *args, **kwargs)
        finally:
            module.config = own


def watch_saving_(change: Transaction, receipt: Receipt, *, only_activations: bool = False) -> None:
    """Put :class:`SavePretrained` on every module that transformers could save; restoring the change takes it off.

    Args:
        change: the open transaction, after everything else in it.
        receipt: of the change.
        only_activations: it replaced activation functions and did nothing else, so that a config may say it all.
    """
    for module in list(change.model.modules()):
        held = module.__dict__.get("save_pretrained")
        savable = hasattr(type(module), "save_pretrained") and hasattr(module.__dict__.get("config"), "to_dict")
        if savable and (held is None or isinstance(held, SavePretrained)):
            before, alone = ((), True) if held is None else (held.lost, held.only_activations)
            stands = SavePretrained(module, (*before, receipt), only_activations=alone and only_activations)
            change.set(module, "save_pretrained", stands)


def _config_that_says(module: Any) -> Any | None:
    """A config from which transformers builds the changed model; None if there is none."""
    try:
        config = _relu_everywhere(module.config)
        with torch.device("meta"):
            fresh = type(module)(config)
    except Exception:  # models and configs may do anything when they are built
        return None
    return config if _are_alike(module, fresh) else None


def _relu_everywhere(config: Any) -> Any:
    """A copy of a config, its parts included, in which every activation function is ReLU."""
    new = copy.deepcopy(config)
    for part in _parts(new):
        for field in _FIELDS:
            if isinstance(getattr(part, field, None), str):
                setattr(part, field, "relu")
    return new


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for value in vars(config).values():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _parts(value)


def _are_alike(model: nn.Module, fresh: nn.Module) -> bool:
    """Do both hold, by the same names, modules of one class or the same activation functions?"""
    here = dict(model.named_modules(remove_duplicate=False))
    there = dict(fresh.named_modules(remove_duplicate=False))
    return here.keys() == there.keys() and all(_hold_alike(here[name], new) for name, new in there.items())


def _hold_alike(held: nn.Module, new: nn.Module) -> bool:
    functions = {k: v for k, v in vars(new).items() if callable(v) and not k.startswith("_")}
    return _same(held, new) and all(k in vars(held) and _same(vars(held)[k], v) for k, v in functions.items())


def _same(held: Any, new: Any) -> bool:
    if held is new or (isinstance(held, nn.Module) and type(held) is type(new)):
        return True
    one, other = identify(held), identify(new)
    return one == other and one.kind != "other"
