"""In-place changes to modules that can be taken back bitwise, all or nothing.

The undo log lives in the model's own ``__dict__`` as plain objects, so ``copy.deepcopy`` of a changed model
carries a log that points into the copy, and ``state_dict`` never sees it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import nn

from lazyneuron.core.errors import ConfigError
from lazyneuron.core.receipt import Receipt

_LOG = "_lazyneuron_undo"
_MISSING = "<attribute was not there>"


@dataclasses.dataclass
class _Entry:
    module: nn.Module
    attribute: str
    original: Any


class Transaction:
    """Collects attribute changes on a model's modules; made by :func:`transaction`."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.model = model
        self.name = name
        self.entries: list[_Entry] = []

    def set(self, module: nn.Module, attribute: str, value: Any) -> None:
        """Set ``module.attribute`` and remember what was there."""
        registered = attribute in module._modules or attribute in module._parameters or attribute in module._buffers
        if registered or attribute in module.__dict__:
            original = getattr(module, attribute)
        else:
            original = _MISSING
        self.entries.append(_Entry(module, attribute, original))
        _assign(module, attribute, value)

    def roll_back(self) -> None:
        """Undo all changes, last first."""
        while self.entries:
            entry = self.entries.pop()
            _assign(entry.module, entry.attribute, entry.original)


def _assign(module: nn.Module, attribute: str, value: Any) -> None:
    # a slot may hold a module now and a plain function before: clear both homes first
    in_modules = attribute in module._modules
    if isinstance(value, nn.Module) and in_modules:
        module._modules[attribute] = value  # keeps the registration order, and so the state_dict order
        return
    if in_modules:
        del module._modules[attribute]
    module.__dict__.pop(attribute, None)
    if isinstance(value, str) and value == _MISSING:
        return
    setattr(module, attribute, value)


@contextlib.contextmanager
def transaction(model: nn.Module, name: str) -> Iterator[Transaction]:
    """Make changes all-or-nothing: any exception inside, also Ctrl-C, rolls every change back."""
    change = Transaction(model, name)
    try:
        yield change
    except BaseException:
        change.roll_back()
        raise
    model.__dict__.setdefault(_LOG, {})[name] = change


def active_changes(model: nn.Module) -> tuple[str, ...]:
    """Names (receipt ids) of the changes that are in force on ``model``, oldest first."""
    return tuple(model.__dict__.get(_LOG, {}))


def restore_(model: nn.Module, receipt: Receipt | str) -> None:
    """Take back the change that ``receipt`` records; module structure and code paths return bitwise.

    Args:
        model: the model that was changed (or a ``deepcopy`` of it).
        receipt: what the verb returned, or its id.

    Raises:
        ConfigError: the model carries no such change, or a later change has to be restored first.
    """
    name = receipt if isinstance(receipt, str) else receipt.id
    log: dict[str, Transaction] = model.__dict__.get(_LOG, {})
    if name not in log:
        raise ConfigError(
            f"This model carries no change with the id {name!r}; it carries {list(log) or 'none'}: "
            "pass the receipt that the verb returned for this very model."
        )
    last = list(log)[-1]
    if last != name:
        raise ConfigError(f"A later change ({last}) builds on {name}; restore the later one first.")
    log.pop(name).roll_back()
    if not log:
        del model.__dict__[_LOG]
