"""The execution of one accelerated block: checks that take microseconds, then the chosen path."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from lazyneuron.accelerate.execution import opaque
from lazyneuron.accelerate.execution.current import Current, State
from lazyneuron.accelerate.execution.freshness import Freshness
from lazyneuron.accelerate.execution.inputs import (
    can_be_compiled,
    wants_gradient,
    why_foreign,
    why_misshapen,
    why_moved,
    why_transformed,
)
from lazyneuron.accelerate.execution.together import Together
from lazyneuron.accelerate.machine import costs
from lazyneuron.accelerate.path import DENSE, Call, Path
from lazyneuron.accelerate.policy.choice import BUCKETS, bucket_of, predict_candidates
from lazyneuron.accelerate.policy.following import PROBE_EVERY, Following
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice.wiring import Wiring
from lazyneuron.core.watch import Watch
from lazyneuron.ops.sparse_mlp import native
from lazyneuron.ops.sparse_mlp.packed import DTYPES, PackedBlock

SETTINGS_EVERY = 64  # calls between two looks at the plain attributes of the block's modules
_CPU = torch.device("cpu")
# bound once: each look at torch's submodules takes as long as the call
_tracing_state = torch._C._get_tracing_state
_is_grad_enabled, _is_autocast_enabled = torch.is_grad_enabled, torch.is_autocast_enabled
CHANGING = "weights that keep changing"


class BlockExecution:
    """Runs a block: returns its output, or None when the original path has to run.

    The original path runs in training mode, when a gradient is wanted, under autocast, in ``torch.export``,
    ``torch.jit.trace`` and functorch transforms, for another dtype or device than the weights', once a module of the
    block is replaced, wrapped or hooked, and wherever dense is predicted to be faster. Weights that changed are packed
    anew before they are used; :class:`Freshness` says what is noticed when. Under ``torch.compile`` the whole of this
    is one operator of the graph.

    Attributes:
        current: the packed weights.
        following: the path of every bucket of token counts.
        last: the path of the last call, or the reason why the original ran.
        ahead: what runs it together with other blocks, if anything did.
    """

    ahead: Together | None = None

    def __init__(
        self,
        block: MLPBlock,
        packed: PackedBlock,
        *,
        freshness: Freshness,
        following: Following,
        slack_factor: float = 1.0,
        isa: int = -1,
        fixed: bool = False,
    ) -> None:
        self.block = block
        self.isa = isa
        self.fixed = fixed
        self.following = following
        self.d_in, self.d_out, self.dtype = packed.d_in, packed.d_out, packed.dtype
        self._ran: Counter[Path | str] = Counter()
        self.last: Path | str = "not called yet"
        self._wiring: Wiring | None = None
        self._calls = 0
        self._enlist()
        self.current = Current(block, slack_factor, self.with_runs)
        self.current.start(packed, freshness)

    def _enlist(self) -> None:
        self.dense = self.block.forward
        self._number, self._opaque = opaque.enlist(self), opaque.op()

    @property
    def wiring(self) -> Wiring | None:
        """The block's modules as they were when its execution was replaced; None for a block by itself."""
        return self._wiring

    @wiring.setter
    def wiring(self, wiring: Wiring) -> None:
        self._wiring = self.current.wiring = wiring

    @property
    def ran(self) -> Counter[Path | str]:
        """How often each path ran, dense included; and, by reason, how often the original had to run."""
        if self.ahead is not None:
            self.ahead.settle()
        return self._ran

    @property
    def counts(self) -> Tensor:
        """What the kernels counted since the weights were packed: pairs computed, pairs fired, tokens, calls."""
        return self.current.now().counts

    def original(self, x: Tensor) -> Tensor:
        """The block as it would run without this execution."""
        y: Tensor = self.dense(x) if self._wiring is None else self._wiring.original(x)
        return y

    def notice(self) -> None:
        """The model was set to training or evaluation mode."""
        self.current.doubt()

    def standing(self) -> str | None:
        """Why the original path has to run for any input, as the model stands now, or None."""
        wiring = self._wiring
        if wiring is None:
            return "training mode" if self.block.down.module.training else None
        return "training mode" if wiring.in_training() else wiring.change()

    def __call__(self, x: Tensor) -> Tensor | None:
        """The block's output, or None for "run the original path"."""
        if torch.compiler.is_compiling():
            return self._opaque(x, self._number, self.d_out) if self._can_be_compiled(x) else None
        known = type(x) is Tensor and _tracing_state() is None  # else its size may be no number
        tokens = x.numel() // self.d_in if known else 0
        bucket, due, dense = self._lookup(tokens)
        if dense and not _is_grad_enabled():
            return self._decline(DENSE)  # before the looks, whose objects streaming weights push out of the caches
        why = self._why_not(x)
        return self._decline(why or DENSE) if why is not None or dense else self._run(x, tokens, bucket, due)

    def _lookup(self, tokens: int) -> tuple[int, bool, bool]:
        """The bucket of so many tokens, whether a look is due there, and whether nothing but dense is wanted."""
        bucket = min((tokens - 1).bit_length(), BUCKETS - 1)
        path = self.following.table[bucket]
        due = not self.fixed and self.following.is_due(bucket, path)
        return bucket, due, path is DENSE and not due

    def _run(self, x: Tensor, tokens: int, bucket: int, due: bool) -> Tensor | None:
        """The block's output for an input that passed the checks, or None where dense runs."""
        self._calls += 1
        if self._calls % SETTINGS_EVERY == 0:
            self.current.doubt_settings()
        state = self.current.for_call(tokens)
        if state is None:
            return self._decline(CHANGING)
        if state.packed is None:
            return self._decline(state.why)
        path = self.following.table[bucket]
        y = self._review(state, x, bucket) if due else None
        if y is None:
            path = self.following.table[bucket]
            run = state.runs[bucket]
            if run is None:
                return self._decline(DENSE)
            y = run(x)
        self.last = path
        self._ran[path] += 1
        return y

    def _why_not(self, x: Tensor) -> str | None:
        """Why the original path has to run for this input, or None."""
        if (foreign := why_foreign(x)) is not None:
            return foreign
        if (standing := self.standing()) is not None:
            self.current.doubt()
            return standing
        if (transformed := why_transformed()) is not None:
            return transformed
        if _is_grad_enabled() and (x.requires_grad or self._wants_gradient()):
            self.current.doubt()
            return "a gradient is wanted"
        if x.dtype is not self.dtype and (why := self._follow_dtype(x.dtype)) is not None:
            return why
        if not x.is_cpu:
            return why_moved(self.block.linears, _CPU) or f"an input on {x.device}"
        return why_misshapen(x, self.d_in) or ("autocast" if _is_autocast_enabled("cpu") else None)

    def runs_together(self, x: Tensor) -> bool:
        """Can one operator run this block for inputs like x and what stands around it, as far as can be seen now?"""
        path, _ = self.way(x.numel() // self.d_in)
        return path.planes > 0 and self._wiring is not None and self._why_not(x) is None

    def calls_ahead(self, tokens: int) -> int:
        """How many calls for so many tokens need nothing but the operator, if nothing changes meanwhile."""
        bucket = bucket_of(tokens)
        return PROBE_EVERY if self.fixed else self.following.calls_ahead(bucket, self.following.table[bucket])

    def way(self, tokens: int) -> tuple[Path, State | None]:
        """Of calls for so many tokens: their path, and the weights as they are packed."""
        return self.following.table[bucket_of(tokens)], self.current.state

    def holds(self, tokens: int, way: tuple[Path, State | None]) -> bool:
        """Before a call that runs together with others: are weights and path those of the record?"""
        return self.way(tokens)[0] is way[0] and way[1] is not None and self.current.holds(way[1], tokens)

    def counted(self, tokens: int) -> Tensor:
        """What calls add to."""
        return self.counts

    def look_at_settings(self) -> None:
        """Plain attributes of the block's modules."""
        self.current.doubt_settings()

    def record(self, watch: Watch, tokens: int) -> dict[str, Any] | None:
        """Have a watch look at what a call looks at, and hand out the packed weights in the order of the operator.

        Returns:
            What a :class:`~lazyneuron.ops.decoding.layers.LayerForm` says of the block; None where a watch cannot look.
        """
        path, state = self.way(tokens)
        if state is None or state.packed is None or self._wiring is None or not self._wiring.record(watch):
            return None
        packed, counts = state.packed, state.counts
        *tensors, _, kind, first, second, left, low, high, planes, _ = native.arguments(
            packed, counts, planes=path.planes
        )
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                watch.given(tensor)
        return {
            "kept": True, "block": (planes, 0), "activation": kind, "parameters": (first, second),
            "zero": (left, low, high), "gated": packed.up_rows is not None, "rectify_up": packed.rectifies_up,
            "up_bias": packed.up_bias is not None, "down_bias": packed.down_bias is not None,
        }  # fmt: skip

    def credit(self, tokens: int, calls: int, way: tuple[Path, State | None], *, due: bool) -> None:
        """Count calls for so many tokens that ran in a way together with others; ``due``: the next one is looked at."""
        self._ran[way[0]] += calls
        if not self.fixed:
            self.following.answered(self.calls_ahead(tokens) if due else calls)

    def _decline(self, why: Path | str) -> Tensor | None:
        self.last = why
        self._ran[why] += 1
        return None

    def _can_be_compiled(self, x: Tensor) -> bool:
        """May the compiled graph hold this block as one operator? What can change later is looked at when it runs."""
        if torch.compiler.is_exporting() or self.standing() is not None or x.device.type != "cpu":
            return False
        return can_be_compiled(x, self.block.linears, width=self.d_in, gradient=self._wants_gradient())

    def _wants_gradient(self) -> bool:
        return wants_gradient(self.block.linears)

    def _follow_dtype(self, dtype: torch.dtype) -> str | None:
        """Pack anew when the model was converted; why not, as when input and weights just differ."""
        held = (site.module._parameters.get("weight") for site in self.block.linears)
        if dtype not in DTYPES or any(p is None or p.dtype != dtype for p in held):
            return f"an input of {dtype} where the weights are {self.dtype}"
        self.current.doubt()
        state = self.current.renewed(self.current.state)
        if state is None:
            return CHANGING
        return state.why or None

    def with_runs(self, state: State) -> State:
        """The state with the paths of the present table, for its own weights."""
        assert state.packed is not None
        if state.packed.dtype != self.dtype:
            self._change_dtype(state.packed)
        table = self.following.table
        runs = {path: None if path is DENSE else self._runner(state, path) for path in set(table)}
        return dataclasses.replace(state, runs=tuple(runs[path] for path in table))

    def _change_dtype(self, packed: PackedBlock) -> None:
        self.dtype = packed.dtype
        known = costs.timed_as(packed.dtype)
        if costs.are_known(known) and not self.fixed:  # else the lines of the other dtype, until times are seen
            paths = tuple(self.following.candidates.lines)
            found = predict_candidates(self.block, costs.cost_model_for(known), paths)
            self.following.candidates = dataclasses.replace(found, checks_us=self.following.candidates.checks_us)

    def _runner(self, state: State, path: Path) -> Call:
        assert state.packed is not None
        return self.dense if path is DENSE else path.runner(state.packed, state.counts, isa=self.isa)

    def _review(self, state: State, x: Tensor, bucket: int) -> Tensor | None:
        """Let the table follow densities and times; the output, if this call was timed."""
        if not self.current.lock.acquire(blocking=False):
            return None
        try:
            if state is not self.current.state:
                return None  # other weights were packed meanwhile
            y, changed = self.following.review(
                x, bucket, counts=state.counts, run=lambda path: self._runner(state, path)
            )
            if changed:
                self.current.state = self.with_runs(state)
        finally:
            self.current.lock.release()
        return y

    def __getstate__(self) -> dict[str, Any]:
        if self.ahead is not None:
            self.ahead.settle()
        left_out = ("dense", "_opaque", "_number", "ahead")
        return {k: v for k, v in self.__dict__.items() if k not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._enlist()
