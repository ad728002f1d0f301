"""Decoder layers that follow each other run as one operator, before all but the first are called.

Between two operators Python works from memory that weights have just pushed out of the caches: what a layer looks at
takes some 45 us there, a sixth of a token with few bytes to read (2026-11). So all layers are looked at together, by
native code, and then run without a way back to Python.
"""

from __future__ import annotations

import operator
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

MOST_READY = 4  # sets of layers at once, for other numbers of sequences or from another layer on
_MOST_MISSES = 3  # calls that were not those foreseen, one after the other, before nothing is foreseen any more
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


class Run:
    """One token's way through layers, which waits for their calls.

    Args:
        given: the call's arguments beside the input.
        layers: in the order of the calls.
        held: what the cache holds of each.
        rooms: its keys and values with one token more, in memory that the cache does not show yet.
        passed: the input of the first layer, then the output of each.
    """

    __slots__ = ("_at", "_given", "_held", "_layers", "_passed", "_rooms", "_seen")

    def __init__(
        self,
        given: dict[str, Any],
        layers: list[Layer],
        held: list[Any],
        rooms: list[tuple[Tensor, Tensor]],
        passed: list[Tensor],
    ) -> None:
        self._given, self._layers, self._held, self._rooms, self._passed = given, layers, held, rooms, passed
        self._seen = [one.keys for one in held]
        self._at = 0

    @property
    def layers(self) -> list[Layer]:
        """Those that wait."""
        return self._layers[self._at :]

    def is_next(self, layer: Layer, x: Tensor, kwargs: Mapping[str, Any]) -> bool:
        """Is this call the one that was foreseen, to the last object?"""
        at = self._at
        if self._layers[at] is not layer or self._passed[at] is not x or x._version > 0:
            return False
        given, held = self._given, self._held[at]
        if given.keys() != kwargs.keys() or not all(map(operator.is_, map(given.get, kwargs), kwargs.values())):
            return False
        layers = kwargs["past_key_values"].layers
        return len(layers) > layer.index and layers[layer.index] is held and held.keys is self._seen[at]

    def output(self) -> Tensor:
        """Of the layer that is next; the cache shows its token from now on."""
        at = self._at
        self._at += 1
        keep_one_more(self._held[at], *self._rooms[at])
        return self._passed[at + 1]

    def is_over(self) -> bool:
        """Were all layers called?"""
        return self._at == len(self._layers)


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
        if run is not None:
            foreseen = run.is_next(layer, x, kwargs)
            self.misses = 0 if foreseen else self.misses + 1
            run = run if foreseen else None
        if run is None:
            run = self._under_way.run = self._run(layer, x, kwargs) if self.misses < _MOST_MISSES else None
            if run is None:
                return None
        y = run.output()
        if run.is_over():
            self._under_way.run = None
        return y

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
        arguments = (weights, keys, values, ready.counts, ready.forms, ready.numbers, at)
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad():  # there every tensor tells whether it was written to
                out = self._call(x, *kwargs["position_embeddings"], *arguments)
        else:
            out = self._call(x, *kwargs["position_embeddings"], *arguments)
        ready.count()
        return Run(dict(kwargs), ready.layers, held, rooms, [x, *out])

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
        while len(self._ready) >= MOST_READY:
            self._ready.pop(next(iter(self._ready))).settle()
        self._ready[key] = ready
        return ready
