"""The packed weights of a block, kept those that the model holds."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

from torch import Tensor

from lazyneuron.accelerate.execution.freshness import Freshness, Unwatched, unwatchable
from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.accelerate.machine import products
from lazyneuron.accelerate.path import Call
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice.wiring import Wiring
from lazyneuron.core.errors import ConfigError
from lazyneuron.ops.sparse_mlp import native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

SOON = 8  # calls: weights that change again sooner than this are changing
QUICK_REPACKS = 4  # of changing weights, before the block waits between two of them
LONGEST_WAIT = 1024  # calls


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What a call reads; exchanged as one, so that a call in another thread sees the old one or the new one.

    Attributes:
        packed: the packed weights, or None when these weights cannot be executed sparsely.
        freshness: of the weights that were packed; made before they were read.
        counts: what the kernels add to.
        runs: [bucket] what runs, None for dense.
        why: one sentence why ``packed`` is None.
    """

    packed: PackedBlock | None
    freshness: Freshness | Unwatched
    counts: Tensor
    runs: tuple[Call | None, ...] = ()
    why: str = ""


class Current:
    """Holds the state of a block's weights and makes it anew when they changed.

    Args:
        block: the block.
        slack_factor: with which it is packed.
        with_runs: fills in the paths of a state whose ``packed`` is there.

    Attributes:
        wiring: the block's modules, for the settings of its activation; None for a block by itself.
        repacked: how often the weights were packed anew.
    """

    def __init__(self, block: MLPBlock, slack_factor: float, with_runs: Callable[[State], State]) -> None:
        self.block = block
        self.slack_factor = slack_factor
        self.wiring: Wiring | None = None
        self.repacked = 0
        self.lock = threading.Lock()
        self.state: State | None = None
        self._with_runs = with_runs
        self._before = (0, 0, 0, 0)
        self._products = products.allowed()
        self._widths = (0, 0)
        self._doubt = self._settled = object()  # two while something may have changed the weights: look at all of them
        self._calls, self._quick, self._wait = 0, 0, 0

    def start(self, packed: PackedBlock, freshness: Freshness) -> None:
        """Begin with what is packed already."""
        self._widths = (packed.d_in, packed.d_out)
        self.state = self._with_runs(State(packed, freshness, native.new_counts()))

    def now(self) -> State:
        """The state as it is, made when there is none."""
        state = self.state
        if state is None:
            with self.lock:
                state = self.state = self._packed()
        return state

    def doubt(self) -> None:
        """Something happened that often comes with changed weights: look at all of them before the next use."""
        self._doubt = object()

    def doubt_settings(self) -> None:
        """Look at the plain attributes of the block's modules, and at what torch's products may round."""
        if self._has_other_settings() or self._products != products.allowed():
            self.doubt()

    def for_call(self, tokens: int) -> State | None:
        """The state of the weights as they are now, or None while they change again and again."""
        self._calls += 1
        state = self.state
        if state is None or self._doubt is not self._settled or not state.freshness.holds_at_a_glance(tokens):
            return self.renewed(state)
        return state

    def holds(self, state: State, tokens: int) -> bool:
        """Is this still the state of the weights? If so, it counts as a call; if not, the next call packs."""
        if state is not self.state or self._doubt is not self._settled or not state.freshness.holds_at_a_glance(tokens):
            return False
        self._calls += 1
        return True

    def check(self) -> bool:
        """Compare every byte of the weights with what was packed, and pack what changed; was all as it was?"""
        self._wait = 0
        before = self.state
        return self.renewed(before, patient=False) is before

    def totals(self) -> tuple[int, int, int, int]:
        """Pairs computed, pairs fired, tokens and calls that the kernels counted since the acceleration."""
        state = self.state
        now = (0, 0, 0, 0) if state is None else state.counts.tolist()
        computed, fired, tokens, calls = (a + b for a, b in zip(self._before, now, strict=True))
        return computed, fired, tokens, calls

    def renewed(self, state: State | None, *, patient: bool = True) -> State | None:
        """The same state if the weights are what they were, else one of the weights as they are now.

        None while weights are changing again and again: packing them each time would take longer than it saves.

        Args:
            state: what the caller found wanting.
            patient: whether to wait with weights that keep changing.
        """
        if self._wait > 0:
            self._wait -= 1
            return None
        with self.lock:
            if state is not self.state:
                return self.state  # another thread has packed meanwhile
            doubt = self._doubt
            if state is not None and self._is_as_packed(state):
                self._settled = doubt  # after the look: until then calls in other threads wait for it
                return state
            self._quick = self._quick + 1 if patient and self._calls < SOON else 0
            self._wait = min(2 ** (self._quick - QUICK_REPACKS), LONGEST_WAIT) if self._quick > QUICK_REPACKS else 0
            self._calls = 0
            self.state = self._packed()
            self._settled = doubt
            return self.state

    def _is_as_packed(self, state: State) -> bool:
        if isinstance(state.freshness, Unwatched):
            return state.freshness.holds()
        as_set = self._products == products.allowed() and not self._has_other_settings()
        return state.packed is not None and as_set and state.freshness.holds()

    def _packed(self) -> State:
        """Pack the weights. What they are is read before they are packed: a write in between counts as a change."""
        self._before = self.totals()
        self._products = products.allowed()
        if (why := unwatchable(self.block)) is not None:
            return State(None, Unwatched(self.block), native.new_counts(), why=why)
        freshness = Freshness(self.block)
        try:
            if self._has_other_settings():
                raise ConfigError("The settings of its modules were changed after the acceleration.")
            packed = pack(self.block)
            if (packed.d_in, packed.d_out) != self._widths:
                raise ConfigError(f"The widths of {self.block.name} were changed after the acceleration.")
        except ValueError as error:
            return State(None, freshness, native.new_counts(), why=str(error))
        self.repacked += 1
        packed = packed if self.slack_factor == 1.0 else packed.with_slack(self.slack_factor)
        return self._with_runs(State(packed, freshness, native.new_counts()))

    def _has_other_settings(self) -> bool:
        return self.wiring is not None and self.wiring.settings_changed()

    def __getstate__(self) -> dict[str, object]:
        left_out = ("lock", "state")
        return {k: v for k, v in self.__dict__.items() if k not in left_out} | {"_before": self.totals()}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.lock, self.state = threading.Lock(), None
