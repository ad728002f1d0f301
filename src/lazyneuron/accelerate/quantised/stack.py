"""Decoder layers that follow each other run as one operator, before all but the first are called.

Between two operators Python works from memory that weights have just pushed out of the caches: what a layer looks at
takes some 45 us there, a sixth of a token with few bytes to read (2026-11). So all layers are looked at together, by
native code, and then run without a way back to Python.
"""

from __future__ import annotations

import bisect
import contextlib
import operator
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lazyneuron.accelerate.execution.together import Member
from lazyneuron.accelerate.quantised.ready import SETTINGS_EVERY, Layer, Ready
from lazyneuron.accelerate.quantised.room import keep_one_more, room_there
from lazyneuron.core.watch import Watch
from lazyneuron.ops.decoding.layers import LayerForm
from lazyneuron.ops.decoding.operators import operators
from lazyneuron.ops.native.watching import Look, looking

MOST_READY = 4  # sets of layers at once, for other numbers of sequences or from another layer on
_MOST_MISSES = 3  # times in a row that a foreseen call of a layer did not come, before it is not foreseen any more
_MOST_CHANGES = 3  # of what layers rely on, within so many tokens as lie between two looks at settings
_REST = 64  # calls of a layer from which on nothing can run together, before it is tried again
_Key = tuple[int, torch.Size, torch.dtype]  # the first layer, and its input
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


class _Here(threading.local):
    """What a thread is in: a call of a model, and a token's way through its layers."""

    in_a_model = False
    run: Run | None = None


_here = _Here()


@contextlib.contextmanager
def call_of_a_model() -> Iterator[None]:
    """Around a model's own forward: within it, and nowhere else, layers run ahead of their calls.

    Between two calls of layers there is then the model's own code alone. What still waits in the end is dropped.
    """
    before = _here.in_a_model, _here.run
    _here.in_a_model, _here.run = True, None
    try:
        yield
    finally:
        run = _here.run
        _here.in_a_model, _here.run = before
        if run is not None:
            run.stack.missed(run.expected)


class Run:
    """One token's way through layers, which waits for their calls.

    Args:
        stack: of the layers.
        given: the call's arguments beside the input.
        layers: in the order of the calls.
        held: what the cache holds of each.
        rooms: its keys and values with one token more, in memory that the cache does not show yet.
        passed: the input of the first layer, then the output of each.
    """

    __slots__ = ("_at", "_given", "_held", "_layers", "_passed", "_rooms", "_seen", "stack")

    def __init__(
        self,
        stack: Stack,
        given: dict[str, Any],
        layers: list[Layer],
        held: list[Any],
        rooms: list[tuple[Tensor, Tensor]],
        passed: list[Tensor],
    ) -> None:
        self.stack = stack
        self._given, self._layers, self._held, self._rooms, self._passed = given, layers, held, rooms, passed
        self._seen = [(one.keys, one.values) for one in held]
        self._at = 0

    @property
    def layers(self) -> list[Layer]:
        """Those that wait."""
        return self._layers[self._at :]

    @property
    def expected(self) -> Layer:
        """Whose call is next."""
        return self._layers[self._at]

    def is_next(self, layer: Layer, x: Tensor, kwargs: Mapping[str, Any]) -> bool:
        """Is this call the one that was foreseen, to the last object?"""
        at = self._at
        if self._layers[at] is not layer or self._passed[at] is not x or x._version > 0:
            return False
        given, held = self._given, self._held[at]
        if given.keys() != kwargs.keys() or not all(map(operator.is_, map(given.get, kwargs), kwargs.values())):
            return False
        layers, (keys, values) = kwargs["past_key_values"].layers, self._seen[at]
        same = len(layers) > layer.index and layers[layer.index] is held
        return same and held.keys is keys and held.values is values

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
    """

    def __init__(self) -> None:
        self._bind()

    def _bind(self) -> None:
        self.layers: list[Layer] = []
        self._ready: dict[_Key, Ready] = {}
        self._missed: Counter[int] = Counter()  # by layer
        self._resting: Counter[int] = Counter()
        self._changes, self._tokens = 0, 0
        self._call: Callable[..., list[Tensor]] = operators().decoder_layers.default

    def __getstate__(self) -> dict[str, Any]:
        return {"": None}  # layers join the stack that their copies have

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._bind()

    def join(self, layer: Layer) -> None:
        """Take a layer in."""
        bisect.insort(self.layers, layer, key=lambda other: other.index)

    def settle(self) -> None:
        """Tell all blocks how often they ran."""
        for ready in list(self._ready.values()):
            ready.settle()

    def missed(self, layer: Layer) -> None:
        """A call of this layer was foreseen, and did not come."""
        self._missed[layer.index] += 1
        if self._missed[layer.index] == _MOST_MISSES:
            self._drop()

    def _drop(self) -> None:
        self.settle()
        self._ready.clear()

    def answer(self, layer: Layer, x: Tensor, kwargs: Mapping[str, Any]) -> Tensor | None:
        """The output of a layer that is called, or None where it has to run by itself."""
        if not _here.in_a_model:
            return None
        run = _here.run
        if run is not None and run.is_next(layer, x, kwargs):
            self._missed[layer.index] = 0
        else:
            if run is not None:
                run.stack.missed(run.expected)
            run = _here.run = self._run(layer, x, kwargs)
            if run is None:
                return None
        y = run.output()
        if run.is_over():
            _here.run = None
        return y

    def _run(self, layer: Layer, x: Tensor, kwargs: Mapping[str, Any]) -> Run | None:
        """This layer and those after it, as far as they can run for this call; None if it cannot itself."""
        if self._resting[layer.index] > 0:
            self._resting[layer.index] -= 1
            return None
        first = layer.held_for(x, kwargs)
        if first is None or another_kind_of_call(x) is not None or forward_ad._current_level >= 0:
            return None
        if room_there(first) is None:
            return None  # layer by layer, so that no more than one is held twice
        found = self._weights(layer, x, kwargs["past_key_values"])
        if found is None:
            return None
        ready, weights = found
        cache, at = kwargs["past_key_values"], first.keys.shape[2]
        held: list[Any] = [other.held_in(cache, x) for other in ready.layers]
        if any(one is None or one.keys.shape[2] != at for one in held):
            self._rest(layer)
            return None
        rooms = [room for one in held if (room := room_there(one)) is not None]
        if len(rooms) < len(held):
            return None
        keys, values = (list(side) for side in zip(*rooms, strict=True))
        arguments = (weights, keys, values, ready.counts, ready.forms, ready.numbers, at)
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad():  # there every tensor tells whether it was written to
                out = self._call(x, *kwargs["position_embeddings"], *arguments)
        else:
            out = self._call(x, *kwargs["position_embeddings"], *arguments)
        ready.count()
        return Run(self, dict(kwargs), ready.layers, held, rooms, [x, *out])

    def _weights(self, layer: Layer, x: Tensor, cache: Any) -> tuple[Ready, list[Tensor]] | None:
        """Layers that can run together from this one on, and their weights as they are now."""
        key = (layer.index, x.shape, x.dtype)
        ready = self._ready.get(key)
        if ready is not None and ready.left <= 0:
            ready.settle()
            if not ready.goes_on():
                del self._ready[key]
                ready = None
            elif ready.left <= 0:
                return None
        self._tokens += 1
        if self._tokens % SETTINGS_EVERY == 0:
            self._changes = 0
            if ready is not None:
                ready.look_at_settings()
        weights = None if ready is None else ready.weights()
        if ready is not None and weights is not None:
            return ready, weights
        if ready is not None:
            self._drop()  # what the others rely on may have changed too, and is not kept alive
            self._changes += 1
        if self._changes > _MOST_CHANGES:
            self._rest(layer)
            return None
        return self._look_at_all(key, layer, x, cache)

    def _rest(self, layer: Layer) -> None:
        self._resting[layer.index] = _REST

    def _look_at_all(self, key: _Key, layer: Layer, x: Tensor, cache: Any) -> tuple[Ready, list[Tensor]] | None:
        """The layer and those after it that can run with it, looked at from Python; None where it is alone."""
        tokens = x.shape[0]
        blocks: dict[Layer, Member] = {}
        for other in self.layers[self.layers.index(layer) :]:
            foreseen = other is layer or self._missed[other.index] < _MOST_MISSES
            follows = other.index == layer.index + len(blocks) and other.held_in(cache, x) is not None
            block = other.block_of(x) if foreseen and follows else None
            if block is None:
                break
            if block.calls_ahead(tokens) == 0:
                return None  # soon it can
            other.look_at_settings()
            block.look_at_settings()
            blocks[other] = block
        watch, forms = Watch(), {}
        for other, block in blocks.items() if len(blocks) > 1 else ():
            form = other.record(watch, block, tokens)
            if form is None:
                break
            forms[other] = form
        if len(forms) < 2:
            self._rest(layer)
            return None
        ready = self._made_ready(tokens, forms, [blocks[other] for other in forms], looking(watch))
        weights = ready.weights()
        if weights is None:
            self._rest(layer)
            return None
        while len(self._ready) >= MOST_READY:
            self._ready.pop(next(iter(self._ready))).settle()
        self._ready[key] = ready
        return ready, weights

    def _made_ready(self, tokens: int, forms: Mapping[Layer, LayerForm], blocks: list[Member], look: Look) -> Ready:
        for block in blocks:
            block.ahead = self
        self.settle()
        return Ready(
            list(forms), blocks, [block.way(tokens) for block in blocks], look,
            counts=[block.counted(tokens) for block in blocks],
            forms=[n for form in forms.values() for n in form.whole_numbers()],
            numbers=[n for form in forms.values() for n in form.fractions()],
            tokens=tokens, left=min(block.calls_ahead(tokens) for block in blocks),
        )  # fmt: skip
