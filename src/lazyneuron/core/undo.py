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

from lazyneuron.core.arguments import check_model, check_receipts
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.receipt import Receipt

PARTS = "parts"  # of a receipt's config: ids of changes that are restored with it
_LOG = "_lazyneuron_undo"
_REGISTRIES = ("_modules", "_parameters", "_buffers")
_HOMES = (*_REGISTRIES, "__dict__")


@dataclasses.dataclass
class _Entry:
    """What an attribute was in each dictionary that held it, and the keys of those that are registries.

    Two may hold it: copies of torch's decoder layer have a function beside the module of the same name, and use that.
    """

    module: Any  # or a plain object that modules share, such as their config
    attribute: str
    originals: dict[str, Any]
    orders: dict[str, tuple[str, ...]]


class Transaction:
    """Collects attribute changes on a model's modules; made by :func:`transaction`.

    Attributes:
        receipt: what the verb returned; set by the verb, so that saving knows every change in force.
        final: one sentence why the change cannot be taken back, or None when it can.
    """

    receipt: Receipt | None = None
    final: str | None = None

    def __init__(self, model: nn.Module, name: str) -> None:
        self.model = model
        self.name = name
        self.entries: list[_Entry] = []

    def set(self, module: Any, attribute: str, value: Any) -> None:
        """Set ``module.attribute`` and remember what was there."""
        homes = _homes_of(module)
        originals = {home: held[attribute] for home in homes if attribute in (held := getattr(module, home))}
        orders = {home: tuple(getattr(module, home)) for home in _REGISTRIES if home in originals}
        entry = _Entry(module, attribute, originals, orders)
        self.entries.append(entry)
        # a slot may hold a module now and a function next; setattr itself sees to all other homes
        if "_modules" in homes:
            module._modules.pop(attribute, None)
        setattr(module, attribute, value)
        _keep_order(entry)

    def roll_back(self) -> None:
        """Undo all changes, last first."""
        while self.entries:
            entry = self.entries.pop()
            for home in _homes_of(entry.module):
                getattr(entry.module, home).pop(entry.attribute, None)
            for home, original in entry.originals.items():
                getattr(entry.module, home)[entry.attribute] = original
            _keep_order(entry)


def _homes_of(module: Any) -> tuple[str, ...]:
    return _HOMES if isinstance(module, nn.Module) else ("__dict__",)


def _keep_order(entry: _Entry) -> None:
    """Give the attribute its old place in its registry, so that ``state_dict`` keeps its order."""
    for home, order in entry.orders.items():
        registry = getattr(entry.module, home)
        if tuple(registry) != order:
            places = {key: registry.pop(key) for key in order if key in registry}
            later = dict(registry)
            registry.clear()
            registry.update(places | later)


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


def changed_modules(model: nn.Module) -> tuple[nn.Module, ...]:
    """The modules that the changes in force on ``model`` touched, also those that are no longer part of it."""
    log: dict[str, Transaction] = model.__dict__.get(_LOG, {})
    touched = {id(entry.module): entry.module for change in log.values() for entry in change.entries}
    return tuple(module for module in touched.values() if isinstance(module, nn.Module))


def receipts(model: nn.Module) -> tuple[Receipt, ...]:
    """The receipts of the changes that are in force on ``model``, oldest first.

    Raises:
        ConfigError: a change was made without one, so that it cannot be said what it was.

    Example:
        >>> receipts(nn.Linear(2, 2))
        ()
    """
    log: dict[str, Transaction] = model.__dict__.get(_LOG, {})
    for name, change in log.items():
        if change.receipt is None:
            raise ConfigError(f"The change {name!r} of this model has no receipt; restore it first.")
    return tuple(change.receipt for change in log.values() if change.receipt is not None)


def amend_(model: nn.Module, receipt: Receipt, *, final: str | None = None) -> None:
    """Put a receipt that says more in the place of that with the same id; the change itself stays.

    Args:
        model: that carries the change.
        receipt: the new one.
        final: one sentence why the change cannot be taken back from now on; None leaves that as it is.

    Raises:
        ConfigError: the model carries no such change.
    """
    log: dict[str, Transaction] = model.__dict__.get(_LOG, {})
    if receipt.id not in log:
        raise ConfigError(f"This model carries no change with the id {receipt.id!r}; pass the receipt of one in force.")
    change = log[receipt.id]
    change.receipt = receipt
    change.final = change.final if final is None else final


def _parts(change: Transaction) -> tuple[str, ...]:
    """Ids of earlier changes that a verb made as parts of this one, last first."""
    return () if change.receipt is None else tuple(change.receipt.config.get(PARTS, ()))


def restore_(model: nn.Module, receipt: Receipt | str) -> None:
    """Take back the change that ``receipt`` records; module structure and code paths return bitwise.

    Args:
        model: the model that was changed (or a ``deepcopy`` of it).
        receipt: what the verb returned, or its id.

    Raises:
        ConfigError: the model carries no such change, a later change has to be restored first, the change kept nothing
            to go back to, or an argument is no model or receipt.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.GELU())
        >>> with transaction(model, "an id") as change:
        ...     change.set(model, "1", nn.ReLU())
        >>> restore_(model, "an id")
        >>> model[1]
        GELU(approximate='none')
    """
    check_model(model)
    if not isinstance(receipt, str):
        check_receipts([receipt])
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
    parts = [part for part in (name, *_parts(log[name])) if part in log]
    for part in parts:
        if (final := log[part].final) is not None:
            raise ConfigError(final)
    for part in parts:
        log.pop(part).roll_back()
    if not log:
        del model.__dict__[_LOG]
