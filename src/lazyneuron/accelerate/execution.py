"""The execution of one accelerated block: checks that take microseconds, then the chosen path."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lazyneuron.accelerate import opaque
from lazyneuron.accelerate.choice import BUCKETS, Candidates
from lazyneuron.accelerate.dense import dense
from lazyneuron.accelerate.packed import PackedBlock, Weights, pack
from lazyneuron.accelerate.sparse_mlp import gather, native
from lazyneuron.blocks.block import MLPBlock

REVIEW_EVERY = 64  # calls between two looks at the density
PROBE_EVERY = 512  # dense calls between two looks whether sparse execution would pay again

Path = Callable[[Tensor], Tensor]


class BlockExecution:
    """Runs a block: returns its output, or None when the original path has to run.

    The original path runs in training mode, when a gradient is wanted, under autocast, in ``torch.export``, for another
    dtype or device than the packed weights', and wherever dense is predicted to be faster. Weights that changed are
    packed anew before they are used. Under ``torch.compile`` the whole of this is one operator of the graph.
    """

    def __init__(
        self,
        block: MLPBlock,
        packed: PackedBlock,
        *,
        candidates: Candidates,
        table: tuple[str, ...],
        shares: Mapping[str, tuple[float, float]] | None = None,
        weights: Weights = "keep",
        slack_factor: float = 1.0,
        isa: int = -1,
        fixed: bool = False,
    ) -> None:
        self.block = block
        self.candidates = candidates
        self.table = table
        self.shares = dict(shares or {})  # path -> (computed, firing), as they were when the table was made
        self.weights = weights
        self.slack_factor = slack_factor
        self.isa = isa
        self.fixed = fixed
        self._enlist()
        self._install(packed)

    def _enlist(self) -> None:
        self._lock = threading.Lock()
        self.dense = dense(self.block)
        self._number, self._opaque = opaque.enlist(self), opaque.op()

    def _install(self, packed: PackedBlock) -> None:
        self.packed = packed
        self.d_in = packed.d_in
        self.dtype = packed.dtype
        self.counts = native.new_counts()
        self._seen = (0, 0, 0, 0)
        self._calls = 0
        sites = [s for s in (self.block.up, self.block.gate, self.block.down) if s is not None]
        names = [(s.module, name) for s in sites for name in ("weight", "bias")]
        self._watched = [
            (module._parameters, name, p, p._version, p.data_ptr())
            for module, name in names
            if (p := module._parameters.get(name)) is not None
        ]
        self._owner = self.block.down.module
        self._set_table(self.table)

    def _set_table(self, table: tuple[str, ...]) -> None:
        self.table = table
        paths = {path: self._path(path) for path in set(table)}
        self._runs: list[Path | None] = [paths[path] for path in table]

    def _path(self, path: str) -> Path | None:
        if path == "dense":
            return None
        if path == "gather":
            return functools.partial(gather.sparse_mlp, self.packed)
        arguments = native.arguments(self.packed, self.counts, planes=int(path[-1]), isa=self.isa)
        op = native.op()
        return lambda x: op(x, *arguments)

    def __call__(self, x: Tensor) -> Tensor | None:
        """The block's output, or None for "run the original path"."""
        if (
            not isinstance(x, Tensor)
            or self._owner.training
            or x.dtype != self.dtype
            or (torch.is_grad_enabled() and (x.requires_grad or self._wants_gradient()))
            or not x.is_cpu
            or x.ndim == 0
            or x.shape[-1] != self.d_in
            or torch.is_autocast_enabled("cpu")
        ):
            return None
        if torch.compiler.is_compiling():
            return None if torch.compiler.is_exporting() else self._opaque(x, self._number, self.packed.d_out)
        for parameters, name, parameter, version, pointer in self._watched:
            if (
                parameters.get(name) is not parameter
                or parameter._version != version
                or parameter.data_ptr() != pointer
            ):
                if not self._pack_again():
                    return None
                break
        tokens = x.numel() // self.d_in
        if tokens == 0:
            return None
        bucket = (tokens - 1).bit_length()
        run = self._runs[bucket if bucket < BUCKETS else -1]
        self._calls += 1
        if self._calls >= REVIEW_EVERY and not self.fixed:
            self._review(x, bucket)
        return None if run is None else run(x)

    def _wants_gradient(self) -> bool:
        return any(entry[2].requires_grad for entry in self._watched)

    def _pack_again(self) -> bool:
        """Pack changed weights; False when they cannot be executed sparsely any more."""
        with self._lock:
            try:
                packed = pack(self.block, self.weights)
            except ValueError:
                return False
            self._install(packed if self.slack_factor == 1.0 else packed.with_slack(self.slack_factor))
            return True

    def _review(self, x: Tensor, bucket: int) -> None:
        """Follow the density: choose again from the shares seen since the last review; probe when nothing was seen."""
        now: tuple[int, ...] = tuple(self.counts.tolist())
        computed, fired, tokens = (now[k] - self._seen[k] for k in range(3))
        if tokens == 0:
            if self._calls < PROBE_EVERY:
                return
            if self.candidates.worth_probing(min(bucket, BUCKETS - 1)):
                probe = self._path(self._probe_path())
                if probe is not None:
                    probe(x)
                    now = tuple(self.counts.tolist())
                    computed, fired, tokens = (now[k] - self._seen[k] for k in range(3))
        self._calls = 0
        self._seen = (now[0], now[1], now[2], now[3])
        if tokens:
            pairs = tokens * self.packed.d_hidden
            path = self.table[min(bucket, BUCKETS - 1)]
            ran = self._probe_path() if path == "dense" else path
            table = self.candidates.choose(self._shares_now(ran, computed / pairs, fired / pairs))
            if table != self.table:
                self._set_table(table)

    def _shares_now(self, ran: str, computed: float, fired: float) -> dict[str, tuple[float, float]]:
        """What each path would compute, from what one path did: they keep the proportion that they had before."""
        before = {path: self.shares[path][0] for path in self.candidates.lines if path in self.shares}
        scale = computed / before[ran] if before.get(ran) else 0.0
        return {
            path: (min(1.0, scale * before[path]) if scale and path in before else computed, fired)
            for path in self.candidates.lines
        }

    def _probe_path(self) -> str:
        certified = [path for path in self.candidates.lines if path.startswith("certified")]
        return certified[0] if certified else "dense"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_runs", "dense", "_opaque", "_number")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._enlist()
        self._set_table(self.table)
