"""The execution of one block on a GPU: checks that take microseconds on the host, then two kernels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from lazyneuron.accelerate.execution import opaque
from lazyneuron.accelerate.execution.inputs import (
    can_be_compiled,
    wants_gradient,
    why_foreign,
    why_misshapen,
    why_moved,
    why_transformed,
)
from lazyneuron.accelerate.gpu.costs import BUCKETS, Costs
from lazyneuron.accelerate.gpu.densities import Densities
from lazyneuron.accelerate.gpu.packing import Marks, Weights, pack
from lazyneuron.accelerate.gpu.timing import MODES, Mode
from lazyneuron.accelerate.path import DENSE, TRITON, Path
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice.wiring import Wiring
from lazyneuron.core.errors import AssumptionError, ShapeError
from lazyneuron.ops.gpu_mlp import operators
from lazyneuron.ops.gpu_mlp.tiles import Tiles

SETTINGS_EVERY = 64  # calls between two looks at the plain attributes of the block's modules
PROBE_EVERY = 512  # dense calls before a sparse one that counts what fires
MOST_TOKENS = 2 ** (BUCKETS - 1)
STALE = "weights that changed while a CUDA graph is captured; call the model once before"


class GpuExecution:
    """Runs a block: returns its output, or None when the original path has to run.

    The original path runs as for :class:`~lazyneuron.accelerate.execution.execution.BlockExecution`: in training mode,
    when a gradient is wanted, under autocast, in exports and function transforms, for another dtype or device than the
    weights', once a module of the block is changed, above 16 tokens, and wherever dense is predicted to be faster.
    Weights that are known to have changed are packed anew before they are used; in a captured CUDA graph or a compiled
    one that replays such, no host looks at anything.

    Args:
        block: on its device.
        costs: of its shape; None for a path that was asked for by name.
        union: [bucket] shares of neurons that fire for some token of a call, as seen on data or assumed.

    Attributes:
        tables: mode -> [bucket] whether the sparse path runs.
        ran: how often each path ran; and, by reason, how often the original had to run.
        last: the path of the last call, or the reason why the original ran.
        off: the original path runs, whatever is faster.
        repacked: how often changed weights were packed anew.
    """

    def __init__(self, block: MLPBlock, costs: Costs | None, union: dict[int, float]) -> None:
        self.block, self.costs = block, costs
        self.d_in, self.d_out, self.d_hidden = block.d_in, block.d_out, block.d_hidden
        self.device, self.dtype = block.up.weight.device, block.up.weight.dtype
        self.ran: Counter[Path | str] = Counter()
        self.last: Path | str = "not called yet"
        self.wiring: Wiring | None = None
        self.off, self.repacked = False, 0
        self.densities = Densities(self.device, self.d_hidden, union)
        self.tables: dict[Mode, tuple[bool, ...]] = {}
        self._choose()
        self._calls = self._dense_calls = 0
        self._other_settings, self._why = False, ""
        self._enlist()

    def _enlist(self) -> None:
        self._weights: Weights | None = None
        self._marks: Marks | None = None
        self._arguments: list[tuple[object, ...]] = []
        self._op = operators.op("mlp")
        self._number, self._opaque = opaque.enlist(self), opaque.op()

    @property
    def fixed(self) -> bool:
        """Whether the path was asked for by name."""
        return self.costs is None

    def original(self, x: Tensor) -> Tensor:
        """The block as it would run without this execution."""
        y: Tensor = self.block.forward(x) if self.wiring is None else self.wiring.original(x)
        return y

    def notice(self) -> None:
        """The model was set to training or evaluation mode."""
        self._look_at_settings()

    def standing(self) -> str | None:
        """Why the original path has to run for any input, as the model stands now, or None."""
        if self.wiring is None:
            return "training mode" if self.block.down.module.training else None
        if self._other_settings:
            return "Settings of its modules changed after the acceleration."
        if (moved := why_moved(self.block.linears, self.device)) is not None:
            return moved
        return "training mode" if self.wiring.in_training() else self.wiring.change()

    def packed(self) -> Weights | None:
        """The weights as they are now, packed; None when that cannot be, for the reason that :meth:`why` says."""
        if self._weights is not None and self._marks is not None and self._marks.hold():
            return self._weights
        packed_before = self._weights is not None
        self._weights, self._marks = None, Marks(self.block)
        try:
            weights = pack(self.block)
            if (self.block.d_in, self.block.d_out, self.block.d_hidden) != (self.d_in, self.d_out, self.d_hidden):
                raise ShapeError(f"The widths of {self.block.name} were changed after the acceleration.")
        except (AssumptionError, ShapeError) as error:
            self._marks, self._why = None, str(error)
            return None
        self.repacked += packed_before
        self._weights, self.dtype = weights, weights.dtype
        self._arguments = [self._bound(weights, k) for k in range(BUCKETS)]
        return weights

    def check(self) -> bool:
        """Compare the copy of ``down`` with the model's, byte by byte, and pack what changed; was all as it was?"""
        held = self._weights
        if held is not None and torch.equal(held.down.rows, self.block.down.weight.t()) and self.packed() is held:
            return True
        self._marks = None
        self.packed()
        return False

    def why(self) -> str:
        """Why :meth:`packed` gave nothing."""
        return self._why

    def __call__(self, x: Tensor) -> Tensor | None:
        """The block's output, or None for "run the original path"."""
        if torch.compiler.is_compiling():
            return self._opaque(x, self._number, self.d_out) if self._can_be_compiled(x) else None
        why = self._why_not(x)
        if why is not None:
            return self._decline(why)
        tokens = x.numel() // self.d_in
        if self.off or tokens > MOST_TOKENS:
            return self._decline(DENSE)
        bucket = (tokens - 1).bit_length()
        capturing = x.is_cuda and torch.cuda.is_current_stream_capturing()
        if not capturing:
            self._look()
        if not self.tables["captured" if capturing else "eager"][bucket] and (capturing or not self._is_to_probe()):
            return self._decline(DENSE)
        if capturing and (self._marks is None or not self._marks.hold()):
            return self._decline(STALE)
        if self.packed() is None:
            return self._decline(self._why)
        self.last = TRITON
        self.ran[TRITON] += 1
        return self.sparse(x)

    def sparse(self, x: Tensor) -> Tensor:
        """The block's output by the kernels, for up to 16 tokens and weights that could be packed."""
        return self._op(x, *self._arguments[(x.numel() // self.d_in - 1).bit_length()])

    def _look(self) -> None:
        """Once in a while, at settings and densities."""
        self._calls += 1
        if self._calls % SETTINGS_EVERY == 0:
            self._look_at_settings()
        if self.densities.follow():
            self._choose()

    def _choose(self) -> None:
        if self.costs is None:
            self.tables = {mode: (True,) * BUCKETS for mode in MODES}
        else:
            self.tables = {mode: self.costs.choose(mode, self.densities.union) for mode in MODES}

    def _is_to_probe(self) -> bool:
        self._dense_calls += 1
        return self._dense_calls % PROBE_EVERY == 0

    def _look_at_settings(self) -> None:
        self._other_settings = self._other_settings or (self.wiring is not None and self.wiring.settings_changed())

    def _bound(self, weights: Weights, bucket: int) -> tuple[object, ...]:
        tiles: Tiles | None = None if self.costs is None else self.costs.tiles[bucket]
        return operators.block_arguments(
            weights.first, weights.down, activation=self.block.activation.compared(weights.dtype),
            counts=self.densities.counts[bucket], up=weights.up, rectify_up=self.block.rectifies_up,
            limit=weights.limit, tiles=tiles,
        )  # fmt: skip

    def _decline(self, why: Path | str) -> Tensor | None:
        self.last = why
        self.ran[why] += 1
        return None

    def _why_not(self, x: Tensor) -> str | None:
        """Why the original path has to run for this input, or None."""
        if (foreign := why_foreign(x)) is not None:
            return foreign
        if (standing := self.standing()) is not None:
            return standing
        if (transformed := why_transformed()) is not None:
            return transformed
        if torch.is_grad_enabled() and (x.requires_grad or wants_gradient(self.block.linears)):
            return "a gradient is wanted"
        if x.device != self.device:
            return f"an input on {x.device}"
        if any(x.dtype != site.weight.dtype for site in self.block.linears):
            return f"an input of {x.dtype} where the weights are {self.block.up.weight.dtype}"
        misshapen = why_misshapen(x, self.d_in)
        return misshapen or ("autocast" if torch.is_autocast_enabled(x.device.type) else None)

    def _can_be_compiled(self, x: Tensor) -> bool:
        """May the compiled graph hold this block as one operator? What can change later is looked at when it runs."""
        if torch.compiler.is_exporting() or self.standing() is not None or x.device != self.device:
            return False
        linears = self.block.linears
        return can_be_compiled(x, linears, width=self.d_in, gradient=wants_gradient(linears))

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_weights", "_marks", "_arguments", "_op", "_number", "_opaque", "densities")
        union = self.densities.union
        return {k: v for k, v in self.__dict__.items() if k not in left_out} | {"densities": union}

    def __setstate__(self, state: dict[str, Any]) -> None:
        union = state.pop("densities")
        self.__dict__.update(state)
        self.densities = Densities(self.device, self.d_hidden, union)
        self._enlist()
