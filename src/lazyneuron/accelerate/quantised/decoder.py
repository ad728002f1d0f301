"""Decoder layers of a quantised model decode with one operator for all that comes before the MLP block.

Run from Python, that part is a dozen calls of torch and of our operators, and as many looks at modules: with few bytes
to read, they take longer than the products. Layers that follow each other run together where they can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _torch_module

from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.execution.together import Member
from lazyneuron.accelerate.quantised import one_graph
from lazyneuron.accelerate.quantised.decoder_find import DecoderLayer
from lazyneuron.accelerate.quantised.execution import QuantisedExecution
from lazyneuron.accelerate.quantised.growing import growing_kinds, is_left_out
from lazyneuron.accelerate.quantised.joined import join_
from lazyneuron.accelerate.quantised.modules import QuantisedLinear
from lazyneuron.accelerate.quantised.room import keep_one_more, room_behind
from lazyneuron.accelerate.quantised.stack import Stack, another_kind_of_call
from lazyneuron.blocks.splice.override import Override, Whole
from lazyneuron.blocks.splice.wiring import watch_child
from lazyneuron.core.undo import Transaction
from lazyneuron.core.watch import Watch
from lazyneuron.ops.decoding.layers import LayerForm
from lazyneuron.ops.decoding.operators import operators

_KNOWN = {"attention_mask", "position_ids", "past_key_values", "use_cache", "position_embeddings", "cache_position"}
_is_grad_enabled = torch.is_grad_enabled  # bound once: each look at torch's submodules takes long
SETTINGS_EVERY = 64  # calls between two looks at the plain attributes of layer and attention


class LayerForward(Override):
    """Stands for the forward of a decoder layer: one token a sequence takes the operator, all else the layer's code.

    The operator runs in evaluation mode without gradients, without a mask, on a plain cache of transformers that holds
    tokens, and while every module that it stands for is the one that it was, without hooks. Weights are read from the
    modules at each call.

    Attributes:
        module: the layer.
        found: its parts.
        index: of its keys and values in a cache.
        stack: it and the layers around it.
    """

    def __init__(self, module: nn.Module, found: DecoderLayer, rule: Mapping[str, Any], stack: Stack) -> None:
        self.module, self.found, self.index, self.stack = module, found, found.index, stack
        attention = module.get_submodule(found.attention)
        self._attention = attention
        self._norms = [module.get_submodule(key) for key in found.norms]
        self._head_norms = [attention.get_submodule(key) for key in found.head_norms]
        self._layers = [attention.get_submodule(key) for key in found.linears]
        self._rule = (float(rule["eps"]), float(rule["offset"]), bool(rule["rounds_first"]))
        form: Any = self._layers[0].format
        self._form = (form.bits, form.group)
        held = ((module, (*found.norms, found.attention)), (attention, (*found.linears, *found.head_norms)))
        links = [(parent, key, parent.get_submodule(key)) for parent, keys in held for key in keys]
        self._links = tuple((*link, type(link[2]), link[2].__dict__.get("forward")) for link in links)
        self._settings = self._plain_attributes()
        self._other_settings, self._calls = False, 0
        self._bind()

    def _bind(self) -> None:
        from transformers.cache_utils import DynamicLayer

        self._kinds, self._held_kind = growing_kinds(), DynamicLayer
        self._call = operators().attention_step.default
        self._number, self._whole = one_graph.layers.enlist(self), one_graph.op()
        self.stack.join(self)
        self._joined = False  # before the first token: what is loaded until then may lie anywhere

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_call", "_kinds", "_held_kind", "_number", "_whole")
        return {key: value for key, value in self.__dict__.items() if key not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the layer's own forward."""
        compiling = torch.compiler.is_compiling()
        if compiling and is_left_out(kwargs, self._kinds):
            from lazyneuron.accelerate.quantised import uncompiled

            return uncompiled.run(self, (hidden_states, *args), kwargs)
        if not compiling and not args:
            answer = self.stack.answer(self, hidden_states, kwargs)
            if answer is not None:
                return answer
        held = None if args else self.held_for(hidden_states, kwargs)
        if held is None:
            return type(self.module).forward(self.module, hidden_states, *args, **kwargs)
        cos, sin = kwargs["position_embeddings"]
        if compiling:
            y, held.keys, held.values = self._whole(hidden_states, cos, sin, held.keys, held.values, self._number)
            return y
        if self.why_not(hidden_states) is not None:
            return type(self.module).forward(self.module, hidden_states, **kwargs)
        keys, values = room_behind(held)
        y = self.step(hidden_states, (cos, sin), (keys, values), held.keys.shape[2])
        keep_one_more(held, keys, values)
        return y

    def step(self, x: Tensor, angles: tuple[Tensor, Tensor], cache: tuple[Tensor, Tensor], at: int) -> Tensor:
        """The layer's output; writes the token's keys and values into the cache's memory."""
        self._join_once()
        layers = [layer._buffers for layer in self._layers]
        biased = layers[0]["bias"] is not None
        sums, normed = self._call(
            x, [norm._parameters["weight"] for norm in self._norms], *self._rule,
            [held["rows"] for held in layers], [held["scale"] for held in layers],
            [held["bias"] for held in layers[:3]] if biased else [], layers[3]["bias"], *self._form,
            [norm._parameters["weight"] for norm in self._head_norms], *angles, *cache, at, self.found.scale,
        )  # fmt: skip
        rest = self.module._modules[self.found.rest]
        assert rest is not None
        y: Tensor = sums + rest(normed)
        return y

    def again(
        self, x: Tensor, angles: tuple[Tensor, Tensor], keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's output, and keys and values in new memory: inside a compiled graph."""
        held: Any = self._held_kind()  # type: ignore[no-untyped-call]
        held.lazy_initialization(keys, values)  # type: ignore[no-untyped-call]
        held.keys, held.values = keys, values
        if self.why_not(x) is None:
            keys, values = room_behind(held, exact=True)
            return self.step(x, angles, (keys, values), held.keys.shape[2]), keys, values
        cache = self._kinds[0]()
        cache.layers = [held] * (self.index + 1)
        given = {"attention_mask": None, "position_embeddings": angles, "past_key_values": cache, "use_cache": True}
        return type(self.module).forward(self.module, x, **given), held.keys, held.values

    def _join_once(self) -> None:
        if not self._joined:
            join_(self._layers[:3])
            self._joined = True

    def held_for(self, x: Tensor, kwargs: Mapping[str, Any]) -> Any | None:
        """What the cache holds of this layer, if this is a call for one token a sequence that follows it."""
        cache: Any = kwargs.get("past_key_values")
        if (
            kwargs.get("attention_mask") is not None
            or type(cache) is not self._kinds[0]
            or cache.offloading
            or x.ndim != 3
            or x.shape[1] != 1
            or kwargs.get("position_embeddings") is None
            or self.module.training
            or _is_grad_enabled()
            or torch.compiler.is_exporting()
            or (
                not kwargs.keys() <= _KNOWN
                and any(key not in _KNOWN and value is not None and value is not False for key, value in kwargs.items())
            )
        ):
            return None
        return self.held_in(cache, x)

    def held_in(self, cache: Any, x: Tensor) -> Any | None:
        """What a cache that grows holds of this layer, if it fits an input like x."""
        if len(cache.layers) <= self.index:
            return None
        held: Any = cache.layers[self.index]
        if type(held) is not self._held_kind or not held.is_initialized:
            return None
        keys: Any = held.keys
        return held if keys.ndim == 4 and keys.shape[0] == x.shape[0] and keys.dtype == x.dtype else None

    def why_not(self, x: Tensor) -> str | None:
        """Why the layer's own code has to run, or None."""
        self._calls += 1
        if self._calls % SETTINGS_EVERY == 0:
            self.look_at_settings()
        return another_kind_of_call(x) or self._change()

    def look_at_settings(self) -> None:
        """Once a plain attribute of the layer or its attention changed, their own code runs."""
        self._other_settings = self._other_settings or self._settings != self._plain_attributes()

    def _change(self) -> str | None:
        """What is no longer as it was, or None."""
        if self._other_settings or _torch_module._global_forward_hooks or _torch_module._global_forward_pre_hooks:
            return "other settings, or hooks on all modules"
        for parent, key, child, kind, forward in self._links:
            own = child.__dict__
            if (
                parent._modules.get(key) is not child
                or type(child) is not kind
                or own.get("forward") is not forward
                or own["_forward_hooks"]
                or own["_forward_pre_hooks"]
            ):
                return "a module that was replaced, wrapped or hooked"
        return None

    def block_of(self, x: Tensor) -> Member | None:
        """The execution of the MLP block, if the layer can run together with others for inputs like x."""
        module = self.module
        rest = module._modules[self.found.rest]
        forward = None if rest is None else rest.__dict__.get("forward")
        run = forward.run if type(forward) is Whole else None
        if (
            rest is None
            or not isinstance(run, (QuantisedExecution, BlockExecution))
            or module.__dict__.get("forward") is not self
            or module.training
            or any(m._forward_hooks or m._forward_pre_hooks for m in (module, rest))
            or self._change() is not None
            or not run.runs_together(x)
        ):
            return None
        return run

    def record(self, watch: Watch, block: Member, tokens: int) -> LayerForm | None:
        """Have a watch look at what :meth:`block_of` and :meth:`step` look at, and hand out the weights in their order.

        None where it cannot.
        """
        self._join_once()
        module, found = self.module, self.found
        for owner, name in ((self, "_other_settings"), (module, "training"), (module, "forward")):
            watch.attribute(owner, name)
        watch.sizes(module, "_forward_hooks", "_forward_pre_hooks")
        watch_child(watch, module, found.rest)
        for parent, key, *_ in self._links:
            watch_child(watch, parent, key)
        for norm in (*self._norms, *self._head_norms):
            watch.taken(norm, "_parameters", "weight")
        for name in ("rows", "scale"):
            for layer in self._layers:
                watch.taken(layer, "_buffers", name)
        biases = [watch.taken_if_there(layer, "_buffers", "bias") for layer in self._layers]
        form = block.record(watch, tokens)
        if form is None:
            return None
        eps, offset, rounds_first = self._rule
        return LayerForm(
            eps=eps, offset=offset, rounds_first=rounds_first, scale=self.found.scale, attention=self._form,
            head_norms=bool(self._head_norms), biases=biases[0], out_bias=biases[3], **form,
        )  # fmt: skip

    def _plain_attributes(self) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in vars(m).items() if isinstance(value, (bool, int, float, str))}
            for m in (self.module, self._attention)
        ]


def fuse_decoder_layers_(
    change: Transaction,
    model: nn.Module,
    layers: Mapping[str, Mapping[str, Any]],
    norms: Mapping[str, Mapping[str, Any]],
) -> None:
    """Let decoder layers run so, where all four layers of their attention are quantised alike.

    Args:
        change: the open transaction, in which layers were exchanged and norms fused already.
        model: changed in place.
        layers: of :func:`~lazyneuron.accelerate.quantised.decoder_find.find_decoder_layers`, as data.
        norms: of :func:`~lazyneuron.accelerate.quantised.norms.find_norms`.
    """
    stacks: dict[str, Stack] = {}  # by what the layers lie in
    for name, data in layers.items():
        found, module = DecoderLayer.of_data(data), model.get_submodule(name)
        attention = module.get_submodule(found.attention)
        parts = [attention.get_submodule(key) for key in found.linears]
        if not all(isinstance(part, QuantisedLinear) and part.format == parts[0].format for part in parts):
            continue
        if len({part.bias is None for part in parts[:3]}) > 1:
            continue
        stack = stacks.setdefault(name.rpartition(".")[0], Stack())
        change.set(module, "forward", LayerForward(module, found, norms[f"{name}.{found.norms[0]}"], stack))
