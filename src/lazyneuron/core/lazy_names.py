"""A package whose public names are imported when they are first used, so that importing it costs next to nothing."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def import_on_use(package: str, homes: dict[str, str]) -> None:
    """Give a package names that are imported when they are first used; its sub-packages too are imported when named.

    Args:
        package: its ``__name__``; called while it is imported.
        homes: the module of each public name. Where a sub-package has the same name, the package has what is public.
    """
    module = sys.modules[package]
    module.__class__ = _Package
    module.__dict__["_homes"] = homes


class _Package(ModuleType):
    """A module with a say in what is bound to it: PEP 562 alone would leave that to the order of imports."""

    _homes: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name in self._homes:
            self.__dict__[name] = getattr(importlib.import_module(self._homes[name]), name)
            return self.__dict__[name]
        inside = f"{self.__name__}.{name}"
        try:
            if not name.startswith("_"):
                return importlib.import_module(inside)
        except ModuleNotFoundError as error:
            if error.name != inside:
                raise
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._homes and isinstance(value, ModuleType):
            return  # the import system binds the sub-package `measure` here, where the function of this name belongs
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes} - {"_homes"})
