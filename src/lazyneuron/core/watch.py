"""What code relies on in Python's objects, recorded once and looked at again before each use."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

ABSENT = object()


class Kind(enum.IntEnum):
    """Of a condition; numbered as in ``csrc/watch_bindings.h``."""

    ATTRIBUTE = 0  # owner.__dict__[key] is value
    ENTRY = 1  # owner[key] is value
    SIZE = 2  # len(owner) == value
    TYPE = 3  # type(owner) is value
    TAKEN = 4  # owner[key] is the object that it was, known by its id; it is handed out


class Condition(NamedTuple):
    """What has to hold.

    Attributes:
        kind: of the condition.
        owner: an object; of ENTRY, SIZE and TAKEN a dict.
        key: of an attribute or an entry, else None.
        value: what it is compared with: an object, :data:`ABSENT`, a number (SIZE) or an id (TAKEN).
    """

    kind: Kind
    owner: Any
    key: str | None
    value: Any


class Watch:
    """Conditions that held when they were recorded.

    Owners and values are kept alive, so that nothing new can take their place in memory, but for what is handed out:
    tensors, of which a model that lets go of them must not keep a copy here.

    Attributes:
        conditions: in the order in which they were recorded.
    """

    def __init__(self) -> None:
        self.conditions: list[Condition] = []
        self._seen: set[tuple[Kind, int, str | None]] = set()

    def _add(self, kind: Kind, owner: Any, key: str | None, value: Any) -> None:
        """Each condition once."""
        if (kind, id(owner), key) not in self._seen:
            self._seen.add((kind, id(owner), key))
            self.conditions.append(Condition(kind, owner, key, value))

    def attribute(self, owner: Any, name: str) -> None:
        """``owner.__dict__`` goes on to hold, or not to hold, this very object under the name."""
        self._add(Kind.ATTRIBUTE, owner, name, vars(owner).get(name, ABSENT))

    def entry(self, held: dict[str, Any], key: str) -> None:
        """The dict goes on to hold, or not to hold, this very object."""
        self._add(Kind.ENTRY, held, key, held.get(key, ABSENT))

    def size(self, held: dict[Any, Any]) -> None:
        """The dict goes on to hold as many entries."""
        self._add(Kind.SIZE, held, None, len(held))

    def type_of(self, owner: Any) -> None:
        """The object goes on to be of this class."""
        self._add(Kind.TYPE, owner, None, type(owner))

    def held(self, owner: Any, name: str, key: str) -> None:
        """``owner.<name>`` goes on to be this dict, and to hold this very object under the key."""
        self.attribute(owner, name)
        self.entry(vars(owner)[name], key)

    def taken(self, owner: Any, name: str, key: str) -> None:
        """As :meth:`held`, and :meth:`look` hands the object out."""
        self.attribute(owner, name)
        held = vars(owner)[name]
        self.conditions.append(Condition(Kind.TAKEN, held, key, id(held[key])))  # as often as it is asked for

    def given(self, value: Any) -> None:
        """Handed out at each look as it is; kept alive."""
        self.conditions.append(Condition(Kind.TAKEN, {"": value}, "", id(value)))

    def taken_if_there(self, owner: Any, name: str, key: str) -> bool:
        """As :meth:`taken`, and whether there is an object; None goes on to be None."""
        if vars(owner)[name].get(key) is None:
            self.held(owner, name, key)
            return False
        self.taken(owner, name, key)
        return True

    def sizes(self, owner: Any, *names: str) -> None:
        """Each ``owner.<name>`` goes on to be this dict, with as many entries."""
        for name in names:
            self.attribute(owner, name)
            self.size(vars(owner)[name])

    def look(self) -> list[Any] | None:
        """What was to be taken, in order, or None if a condition does not hold any more."""
        taken: list[Any] = []
        for kind, owner, key, value in self.conditions:
            match kind:
                case Kind.ATTRIBUTE:
                    holds = vars(owner).get(key, ABSENT) is value
                case Kind.ENTRY:
                    holds = owner.get(key, ABSENT) is value
                case Kind.SIZE:
                    holds = len(owner) == value
                case Kind.TYPE:
                    holds = type(owner) is value
                case Kind.TAKEN:
                    taken.append(owner.get(key, ABSENT))
                    holds = id(taken[-1]) == value
            if not holds:
                return None
        return taken
