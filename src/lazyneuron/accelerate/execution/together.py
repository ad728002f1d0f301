"""What runs several blocks at once, and what it asks of each."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from lazyneuron.core.watch import Watch


class Together(Protocol):
    """What runs several blocks at once."""

    def settle(self) -> None:
        """Tell each block of the calls that it was not told of."""


class Member(Protocol):
    """The execution of a block that may run together with others.

    Attributes:
        ahead: what ran it so last.
    """

    ahead: Together | None

    def runs_together(self, x: Tensor) -> bool:
        """Can one operator run this block for inputs like x and what stands around it, as far as can be seen now?"""

    def calls_ahead(self, tokens: int) -> int:
        """How many calls for so many tokens need nothing but the operator, if nothing changes meanwhile."""

    def way(self, tokens: int) -> object:
        """Of calls for so many tokens: what a record of them depends on beside what the watch looks at."""

    def record(self, watch: Watch, tokens: int) -> dict[str, Any] | None:
        """Have a watch look at what a call looks at, and hand out the weights in the order of the operator.

        Returns:
            What a :class:`~lazyneuron.ops.decoding.layers.LayerForm` says of the block; None where a watch cannot look.
        """

    def counted(self, tokens: int) -> Tensor:
        """What calls for so many tokens add to."""

    def holds(self, tokens: int, way: Any) -> bool:
        """Before each call: is all that the watch cannot look at as it was when this was its way?"""

    def look_at_settings(self) -> None:
        """Once in a while: plain attributes of the block's modules."""

    def credit(self, tokens: int, calls: int, way: Any, *, due: bool) -> None:
        """Count calls for so many tokens that ran in a way together with others; ``due``: the next one is looked at."""
