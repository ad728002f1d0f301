"""The execution of one accelerated block: checks that take microseconds, then the chosen path."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lazyneuron.accelerate import calibrate, opaque
from lazyneuron.accelerate.choice import BUCKETS, Candidates, from_cost_model
from lazyneuron.accelerate.dense import dense
from lazyneuron.accelerate.following import Following
from lazyneuron.accelerate.freshness import Freshness
from lazyneuron.accelerate.packed import PackedBlock, Weights, pack
from lazyneuron.accelerate.sparse_mlp import gather, native
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.wiring import Wiring
from lazyneuron.core.errors import ConfigError

SOON = 8  # calls: weights that change again sooner than this are changing
QUICK_REPACKS = 4  # of changing weights, before the block waits between two of them
LONGEST_WAIT = 1024  # calls
SETTINGS_EVERY = 64  # calls between two looks at the plain attributes of the activation module

Path = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class _State:
    """What a call reads; exchanged as one, so that a call in another thread sees the old one or the new one.

    Attributes:
        packed: the packed weights, or None when these weights cannot be executed sparsely.
        freshness: of the weights that were packed; made before they were read.
        counts: what the kernels add to.
        runs: [bucket] the path, None for dense.
        why: one sentence why ``packed`` is None.
    """

    packed: PackedBlock | None
    freshness: Freshness
    counts: Tensor
    runs: tuple[Path | None, ...]
    why: str = ""


class BlockExecution:
    """Runs a block: returns its output, or None when the original path has to run.

    The original path runs in training mode, when a gradient is wanted, under autocast, in ``torch.export``,
    ``torch.jit.trace`` and functorch transforms, for another dtype or device than the weights', once a module of the
    block is replaced, wrapped or hooked, and wherever dense is predicted to be faster. Weights that changed are packed
    anew before they are used; :class:`Freshness` says what is noticed when. Under ``torch.compile`` the whole of this
    is one operator of the graph.

    Attributes:
        wiring: the block's modules as they were when its execution was replaced; None for a block by itself.
        following: the path of every bucket of token counts.
        ran: how often each path ran, ``"dense"`` included; and, by reason, how often the original had to run.
        last: the path of the last call, or the reason why the original ran.
    """

    def __init__(
        self,
        block: MLPBlock,
        packed: PackedBlock,
        *,
        freshness: Freshness,
        candidates: Candidates,
        table: tuple[str, ...],
        shares: Mapping[str, tuple[float, float]] | None = None,
        weights: Weights = "keep",
        slack_factor: float = 1.0,
        isa: int = -1,
        fixed: bool = False,
    ) -> None:
        self.block = block
        self.weights = weights
        self.slack_factor = slack_factor
        self.isa = isa
        self.fixed = fixed
        self.wiring: Wiring | None = None
        self.following = Following(candidates, table, shares, packed.d_hidden)
        self.d_in, self.d_out, self.dtype = packed.d_in, packed.d_out, packed.dtype
        self.ran: Counter[str] = Counter()
        self.last = "not called yet"
        self.repacked = 0
        self._before = [0, 0, 0, 0]
        self._doubt = False  # something ran that may have changed the weights: look at all of them before the next use
        self._calls, self._quick, self._wait = 0, 0, 0
        self._enlist()
        self._state: _State | None = self._made(packed, freshness)

    def _enlist(self) -> None:
        self._lock = threading.Lock()
        self.dense = dense(self.block)
        self._number, self._opaque = opaque.enlist(self), opaque.op()

    @property
    def counts(self) -> Tensor:
        """What the kernels counted since the weights were packed: pairs computed, pairs fired, tokens, calls."""
        return self._current().counts

    @property
    def packed(self) -> PackedBlock | None:
        """The packed weights, or None when they cannot be executed sparsely."""
        return self._current().packed

    @property
    def freshness(self) -> Freshness:
        """Of the weights that were packed."""
        return self._current().freshness

    @property
    def why_dense(self) -> str:
        """Why :attr:`packed` is None, or an empty sentence."""
        return self._current().why

    def totals(self) -> tuple[int, int, int, int]:
        """As :attr:`counts`, since the acceleration."""
        state = self._state
        now = [0, 0, 0, 0] if state is None else state.counts.tolist()
        computed, fired, tokens, calls = (a + b for a, b in zip(self._before, now, strict=True))
        return computed, fired, tokens, calls

    def original(self, x: Tensor) -> Tensor:
        """The block as it would run without this execution."""
        y: Tensor = self.dense(x) if self.wiring is None else self.wiring.original(x)
        return y

    def __call__(self, x: Tensor) -> Tensor | None:
        """The block's output, or None for "run the original path"."""
        if torch.compiler.is_compiling():
            return self._opaque(x, self._number, self.d_out) if self._can_be_compiled(x) else None
        why = self._why_not(x)
        if why is not None:
            return self._decline(why)
        state = self._state
        tokens = x.numel() // self.d_in
        if state is None or self._doubt or not state.freshness.holds_at_a_glance(tokens):
            state = self._renewed(state)
        if state is None:
            return self._decline("weights that keep changing")
        if state.packed is None:
            return self._decline(state.why)
        bucket = (tokens - 1).bit_length()
        if bucket >= BUCKETS:
            bucket = BUCKETS - 1
        self._calls += 1
        if self._calls % SETTINGS_EVERY == 0 and self._has_other_settings():
            self._doubt = True
        if not self.fixed and self.following.is_due(bucket):
            y = self._review(state, x, bucket)
            if y is not None:
                return y
        run = state.runs[bucket]
        self.last = path = self.following.table[bucket]
        self.ran[path] += 1
        return None if run is None else run(x)

    def _why_not(self, x: Tensor) -> str | None:
        """Why the original path has to run for this input, or None."""
        if type(x) is not Tensor:
            return f"an input of type {type(x).__name__}"
        if (standing := self.standing()) is not None:
            self._doubt = True
            return standing
        if (
            torch._C._functorch.peek_interpreter_stack() is not None
            or torch._C._get_tracing_state() is not None
            or forward_ad._current_level >= 0
        ):
            return "a function transform or a trace"
        if torch.is_grad_enabled() and (x.requires_grad or self._wants_gradient()):
            self._doubt = True
            return "a gradient is wanted"
        if x.dtype is not self.dtype and not self._follow_dtype(x.dtype):
            return f"an input of {x.dtype} where the weights are {self.dtype}"
        if not x.is_cpu:
            return f"an input on {x.device}"
        if x.ndim == 0 or x.shape[-1] != self.d_in or x.numel() == 0:
            return f"an input of shape {tuple(x.shape)}"
        if torch.is_autocast_enabled("cpu"):
            return "autocast"
        return None

    def standing(self) -> str | None:
        """Why the original path has to run for any input, as the model stands now, or None."""
        wiring = self.wiring
        if self.block.down.module.training or (wiring is not None and wiring.in_training()):
            return "training mode"
        return None if wiring is None else wiring.change()

    def _decline(self, why: str) -> None:
        self.last = why
        self.ran[why] += 1

    def _can_be_compiled(self, x: Tensor) -> bool:
        """May the compiled graph hold this block as one operator? What can change later is looked at when it runs."""
        return not (
            torch.compiler.is_exporting()
            or self.standing() is not None
            or (torch.is_grad_enabled() and (x.requires_grad or self._wants_gradient()))
            or x.dtype != self.block.down.weight.dtype
            or x.device.type != "cpu"
            or x.ndim == 0
            or x.shape[-1] != self.d_in
            or torch.is_autocast_enabled("cpu")
        )

    def _wants_gradient(self) -> bool:
        return any(
            p.requires_grad for site in self.block.linears for p in site.module._parameters.values() if p is not None
        )

    def _follow_dtype(self, dtype: torch.dtype) -> bool:
        """Pack anew when the model was converted; False when input and weights just differ."""
        if any(site.weight.dtype != dtype for site in self.block.linears):
            return False
        self._doubt = True
        state = self._renewed(self._state)
        return state is not None and self.dtype == dtype

    def _has_other_settings(self) -> bool:
        return self.wiring is not None and self.wiring.settings_changed()

    def notice(self) -> None:
        """Something happened that often comes with changed weights: look at all of them before the next use."""
        self._doubt = True

    def _current(self) -> _State:
        state = self._state
        if state is None:
            with self._lock:
                state = self._state = self._packed_now()
        return state

    def check(self) -> bool:
        """Compare every byte of the weights with what was packed, and pack what changed; was all as it was?"""
        self._wait = 0
        before = self._state
        self._doubt = True
        after = self._renewed(before, patient=False)
        return after is before

    def _renewed(self, state: _State | None, *, patient: bool = True) -> _State | None:
        """A state of the weights as they are now: the same one if they are as they were, else packed anew.

        None while weights are changing again and again: packing them each time would take longer than it saves.
        """
        if self._wait > 0:
            self._wait -= 1
            return None
        with self._lock:
            if state is not self._state:
                return self._state  # another thread has packed meanwhile
            if state is not None and self._doubt:
                self._doubt = False
                if state.packed is not None and state.freshness.holds() and not self._has_other_settings():
                    return state
            self._quick = self._quick + 1 if patient and self._calls < SOON else 0
            self._wait = min(2 ** (self._quick - QUICK_REPACKS), LONGEST_WAIT) if self._quick > QUICK_REPACKS else 0
            self._calls = 0
            self._doubt = False
            self._state = self._packed_now()
            return self._state

    def _packed_now(self) -> _State:
        """Pack the weights. What they are is read before they are packed: a write in between counts as a change."""
        freshness = Freshness(self.block)
        try:
            if self._has_other_settings():
                raise ConfigError("The settings of the activation module were changed after the acceleration.")
            packed = pack(self.block, self.weights)
        except ValueError as error:
            return _State(None, freshness, native.new_counts(), (), str(error))
        if packed.dtype != self.dtype:
            self._change_dtype(packed)
        self.repacked += 1
        self._before = list(self.totals())
        self.following.forget_counts()
        return self._made(packed if self.slack_factor == 1.0 else packed.with_slack(self.slack_factor), freshness)

    def _change_dtype(self, packed: PackedBlock) -> None:
        self.dtype = packed.dtype
        known = packed.dtype if packed.dtype != torch.float16 else torch.bfloat16
        if calibrate.is_calibrated(known) and not self.fixed:  # else the lines of the other dtype, until times are seen
            self.following.candidates = from_cost_model(
                calibrate.cost_model_for(known),
                weights=sum(site.weight.numel() for site in self.block.linears),
                gated=self.block.gate is not None,
                paths=tuple(self.following.candidates.lines),
            )

    def _made(self, packed: PackedBlock, freshness: Freshness) -> _State:
        return self._with_runs(_State(packed, freshness, native.new_counts(), ()))

    def _with_runs(self, state: _State) -> _State:
        table = self.following.table
        paths = {path: None if path == "dense" else self._path(state, path) for path in set(table)}
        return dataclasses.replace(state, runs=tuple(paths[path] for path in table))

    def _path(self, state: _State, path: str) -> Path:
        if path == "dense":
            return self.dense
        assert state.packed is not None
        if path == "gather":
            return functools.partial(gather.sparse_mlp, state.packed)
        arguments = native.arguments(state.packed, state.counts, planes=int(path[-1]), isa=self.isa)
        op = native.op()
        return lambda x: op(x, *arguments)

    def _review(self, state: _State, x: Tensor, bucket: int) -> Tensor | None:
        """Let the table follow densities and times; the output, if this call was timed."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if state is not self._state:
                return None
            path = self.following.table[bucket]
            y, changed = self.following.review(x, bucket, counts=state.counts, run=lambda path: self._path(state, path))
            if changed:
                self._state = self._with_runs(state)
        finally:
            self._lock.release()
        if y is not None:
            self.last = path
            self.ran[path] += 1
        return y

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_lock", "_state", "dense", "_opaque", "_number")
        return {k: v for k, v in self.__dict__.items() if k not in left_out} | {"_before": list(self.totals())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._state = None
        self._enlist()
