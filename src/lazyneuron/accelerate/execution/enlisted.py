"""What operators of compiled graphs run, known to them by numbers."""

from __future__ import annotations

import itertools
import weakref
from typing import Generic, TypeVar

from lazyneuron.core.errors import ConfigError

T = TypeVar("T")


class Enlisted(Generic[T]):
    """Objects of one kind by number, each for as long as it lives."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._held: weakref.WeakValueDictionary[int, T] = weakref.WeakValueDictionary()

    def enlist(self, one: T) -> int:
        """Give an object its number."""
        number = next(self._numbers)
        self._held[number] = one
        return number

    def of(self, number: int) -> T:
        """The object of a number.

        Raises:
            ConfigError: it is gone.
        """
        one = self._held.get(number)
        if one is None:
            raise ConfigError("This compiled model belongs to an acceleration that is gone; compile the model again.")
        return one
