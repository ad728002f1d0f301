"""Decoder layers that follow each other run as one operator, before all but the first are called.

Between two operators Python works from memory that weights have just pushed out of the caches: what a layer looks at
takes some 45 us there, a sixth of a token with few bytes to read (2026-11). So all layers are looked at together, by
native code, and then run without a way back to Python.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lazyneuron.accelerate.execution.together import Member
from lazyneuron.accelerate.quantised.ready import Layer, Ready
from lazyneuron.accelerate.quantised.room import keep_one_more, room_behind
from lazyneuron.core.watch import Watch
from lazyneuron.ops.decoding.layers import LayerForm
from lazyneuron.ops.decoding.operators import operators
from lazyneuron.ops.native.watching import Look, looking

_MOST_MISSES = 3  # calls that were not those foreseen, one after the other, before nothing is foreseen any more
_MISSING = object()
_functorch_level = torch._C._functorch.peek_interpreter_stack
_tracing_state, _dispatch_modes = torch._C._get_tracing_state, torch._C._len_torch_dispatch_stack
_is_autocast_enabled = torch.is_autocast_enabled  # bound once: each look at torch's submodules takes long


def another_kind_of_call(x: Tensor) -> str | None:
    """Why operators of ours cannot take this input in this mode of torch, or None."""
    if (
        type(x) is not Tensor
        or not x.is_cpu
        or _tracing_state() is not None
        or _functorch_level() is not None
        or _dispatch_modes() > 0
        or _is_autocast_enabled("cpu")
    ):
        return "another kind of call"
    return None


@dataclasses.dataclass(slots=True)
class Step:
    """What was computed for the call of one layer.

    Attributes:
        x: the call's input, as the layer before gave it out.
        held: what the cache holds of the layer, of which ``seen`` are the keys.
        room: keys and values with one token more, in memory that the cache does not show yet.
        y: the layer's output.
    """

    x: Tensor
    held: Any
    seen: Tensor
    room: tuple[Tensor, Tensor]
    y: Tensor


@dataclasses.dataclass(slots=True)
class Run:
    """One token's way through layers: the call's arguments beside the input, and a step for each of the layers."""

    given: Mapping[str, Any]
    steps: dict[Layer, Step]

    def step_of(self, layer: Layer, x: Tensor, kwargs: Mapping[str, Any]) -> Step | None:
        """What was computed for this call, if it is the one that was foreseen to the last object."""
        step = self.steps.get(layer)
        if step is None or step.x is not x or x._version > 0 or step.held.keys is not step.seen:
            return None
        if len(kwargs) != len(self.given) or any(kwargs.get(k, _MISSING) is not v for k, v in self.given.items()):
            return None
        layers = kwargs["past_key_values"].layers
        return step if len(layers) > layer.index and layers[layer.index] is step.held else None


class Stack:
    """Consecutive decoder layers, of which the first that is called runs the others too.

    Each layer's own call then takes what was computed for it, if it is the very call that was foreseen: with the tensor
    that the layer before gave out, not written to since, and with the same cache, angles and all else. Any other call
    runs as if nothing had been computed. Keys and values are written behind those that the cache shows, which shows
    them with the layer's own call; so what is dropped leaves no trace. A layer with hooks, in training mode or changed
    since the acceleration ends the way, and runs as it does by itself.

    Attributes:
        layers: in the order of the model.
        misses: how many foreseen calls in a row did not come.
    """

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.misses = 0
        self._bind()

    def _bind(self) -> None:
        self._under_way = threading.local()  # a Run of each thread
        self._ready: dict[tuple[int, torch.Size, torch.dtype], Ready] = {}
        self._call: Callable[..., list[Tensor]] = operators().decoder_layers.default

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self.layers, "misses": self.misses}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()

    def answer(self, layer: Layer, x: Tensor, kwargs: Mapping[str, Any]) -> Tensor | None:
        """The output of a layer that is called, or None where it has to run by itself."""
        run: Run | None = getattr(self._under_way, "run", None)
        step = None
        if run is not None:
            step = run.step_of(layer, x, kwargs)
            self.misses = 0 if step is not None else self.misses + 1
        if run is None or step is None:
            run = self._under_way.run = self._run(layer, x, kwargs) if self.misses < _MOST_MISSES else None
            if run is None:
                return None
            step = run.steps[layer]
        del run.steps[layer]
        if not run.steps:
            self._under_way.run = None
        keep_one_more(step.held, *step.room)
        return step.y

    def _run(self, layer: Layer, x: Tensor, kwargs: Mapping[str, Any]) -> Run | None:
        """This layer and those after it, as far as they can run for this call; None if it cannot itself."""
        first = layer.held_for(x, kwargs)
        if first is None or another_kind_of_call(x) is not None or forward_ad._current_level >= 0:
            return None
        key = (layer.index, x.shape, x.dtype)
        ready = self._ready.get(key)
        if ready is not None and ready.left <= 0:
            ready.settle()
            if not ready.goes_on():
                ready = None
            elif ready.left <= 0:
                return None
        weights = None if ready is None else ready.weights()
        if ready is None or weights is None:
            ready = self._look_at_all(key, layer, x)
            weights = None if ready is None else ready.weights()
            if ready is None or weights is None:
                return None
        cache, at = kwargs["past_key_values"], first.keys.shape[2]
        held: list[Any] = [other.held_in(cache, x) for other in ready.layers]
        if any(one is None or one.keys.shape[2] != at for one in held):
            return None
        rooms = [room_behind(one) for one in held]
        keys, values = (list(side) for side in zip(*rooms, strict=True))
        with torch.inference_mode(False), torch.no_grad():  # there every tensor tells whether it was written to
            out = self._call(
                x, *kwargs["position_embeddings"], weights, keys, values, ready.counts, ready.forms, ready.numbers, at
            )  # fmt: skip
        ready.count()
        steps = {
            other: Step(entering, one, one.keys, room, y)
            for other, one, room, entering, y in zip(ready.layers, held, rooms, (x, *out[:-1]), out, strict=True)
        }
        return Run(dict(kwargs), steps)

    def _look_at_all(self, key: tuple[int, torch.Size, torch.dtype], layer: Layer, x: Tensor) -> Ready | None:
        """The layer and those after it that can run with it, looked at from Python; None where it is alone."""
        before = self._ready.pop(key, None)
        if before is not None:
            before.settle()
        tokens = x.shape[0]
        own = layer.block_of(x)
        if own is None or own.calls_ahead(tokens) == 0:
            return None
        blocks = {other: other.block_of(x) for other in self.layers}
        if any(block is not None and block.calls_ahead(tokens) == 0 for block in blocks.values()):
            return None  # soon all of them can
        watch, forms = Watch(), {}
        for other in self.layers[self.layers.index(layer) :]:
            block = blocks[other]
            form = None if block is None else other.record(watch, block, tokens)
            if form is None:
                break
            forms[other] = form
        if len(forms) < 2:
            return None
        return self._made_ready(key, forms, [b for other in forms if (b := blocks[other]) is not None], looking(watch))

    def _made_ready(
        self,
        key: tuple[int, torch.Size, torch.dtype],
        forms: Mapping[Layer, LayerForm],
        blocks: list[Member],
        look: Look,
    ) -> Ready:
        tokens = key[1][0]
        for block in blocks:
            if block.ahead is not None:
                block.ahead.settle()
        ready = Ready(
            list(forms), blocks, [block.way(tokens) for block in blocks], look,
            counts=[block.counted(tokens) for block in blocks],
            forms=[n for form in forms.values() for n in form.whole_numbers()],
            numbers=[n for form in forms.values() for n in form.fractions()],
            tokens=tokens, left=min(block.calls_ahead(tokens) for block in blocks),
        )  # fmt: skip
        for block in blocks:
            block.ahead = ready
        self._ready[key] = ready
        return ready
