"""The execution of one block on quantised weights."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.execution.together import Together
from lazyneuron.accelerate.gpu import quantised as gpu
from lazyneuron.accelerate.gpu.execution import GpuExecution
from lazyneuron.accelerate.path import DENSE
from lazyneuron.accelerate.policy.choice import BUCKETS
from lazyneuron.accelerate.quantised.choice import Choice
from lazyneuron.accelerate.quantised.modules import DEVICES, Quantised, elsewhere
from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.splice.wiring import Wiring
from lazyneuron.core.undo import changed_modules
from lazyneuron.core.watch import Watch
from lazyneuron.ops.gpu_mlp import operators as gpu_operators
from lazyneuron.ops.quantised import operators, selected
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS

LOOK_EVERY = 512  # calls that nothing but a change ends
SPARSE, EVERY = "quantised", "quantised, every neuron"
SETTINGS_EVERY = 64  # calls between two looks at the plain attributes of the block's modules
_is_grad_enabled, _is_autocast_enabled = torch.is_grad_enabled, torch.is_autocast_enabled  # bound once: looks take long


class QuantisedExecution:
    """Runs a block as one operator: returns its output, or None when its layers have to run one by one.

    The layers give the same numbers up to rounding between them. They run in training mode, under autocast, in function
    transforms, and once a module of the block is replaced, wrapped or hooked. The bytes are read from the layers at
    each call: there is no other copy of them that could grow old.

    Attributes:
        block: on its quantised layers.
        counts: what the kernels counted: pairs computed, pairs fired, tokens, calls.
        counts_of_every: the same of the calls that evaluated every neuron.
        last: what ran last, or why not.
        every: read every neuron's rows, whatever fires.
        choices: [bucket of token counts] whether calls skip rows where not all are asked for.
        ahead: what runs it together with other blocks, if anything did.
    """

    ahead: Together | None = None

    def __init__(self, block: MLPBlock, *, interpret: bool = False) -> None:
        self.block = block
        self._interpret = interpret
        self._limit: float | None = None  # of the kernels of GPUs
        self._gpu_operator: Callable[..., Tensor] | None = None
        self.counts = torch.zeros(4, dtype=torch.int64)
        self.counts_of_every = torch.zeros(4, dtype=torch.int64)
        self.wiring: Wiring | None = None
        self._ran: Counter[str] = Counter()
        self.last = "not called yet"
        self.every = False
        self.choices = [Choice() for _ in range(BUCKETS)]
        activation = block.activation
        self._kind = KERNEL_ACTIVATIONS.index(activation.kind) if activation.elementwise else None
        self._parameters = tuple(map(float, (*activation.parameters, 0.0, 0.0)[:2]))
        self._first, self._down = _layer(block.first), _layer(block.down)
        self._up = None if block.gate is None else _layer(block.up)
        self._form = self._first.format
        self._calls = 0
        self._bind()
        self._other_settings = False
        self._prepare_for_gpu()

    def _bind(self) -> None:
        """Look the operator up once, so that compilers see it and nothing around it."""
        self._call: Callable[..., Tensor] = operators.operators().quantised_mlp.default
        self._select = None if self.block.activation.elementwise else selected.op()

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        left_out = ("_call", "_select", "_gpu_operator", "ahead")  # operators cannot be pickled
        return {key: value for key, value in self.__dict__.items() if key not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._gpu_operator = None
        self._bind()

    @property
    def ran(self) -> Counter[str]:
        """How often the operator ran, and how often, by reason, the layers."""
        self._settle()
        return self._ran

    def _settle(self) -> None:
        if self.ahead is not None:
            self.ahead.settle()

    def notice(self) -> None:
        """The model was set to training or evaluation mode."""
        self.look_at_settings()

    def look_at_settings(self) -> None:
        """Once a plain attribute of the block's modules changed, such as a threshold, the layers run."""
        self._other_settings = self._other_settings or (self.wiring is not None and self.wiring.settings_changed())

    def standing(self) -> str | None:
        """Why the layers have to run for any input, as the model stands now, or None."""
        if self.wiring is None:
            return "training mode" if self._down.training else None
        if self._other_settings:
            return "Settings of its activation changed after it was quantised."
        return "training mode" if self.wiring.in_training() else self.wiring.change()

    def __call__(self, x: Tensor) -> Tensor | None:
        """The block's output, or None for "run the layers"."""
        if torch.compiler.is_compiling():
            unready = self._on_gpu and (self._limit is None or self._gpu_operator is None)
            return None if unready or self._why_not(x) is not None else self.run(x)
        self._calls += 1
        if self._calls % SETTINGS_EVERY == 0:
            self.look_at_settings()
        why = self._why_not(x)
        if why is not None:
            self.last = why
            self._ran[why] += 1
            return None
        if self._on_gpu:
            return self._call_on_gpu(x)
        if self.every or torch._C._get_tracing_state() is not None:  # the size of what is traced is no number
            return self._note(self.run(x), every=self.every)
        tokens = x.numel() // self._first.in_features
        choice = self._choice(tokens)
        if not choice.is_due():
            return self._note(self.run(x, choice.every), every=choice.every)
        calls = int(self.counts_of_every[3])
        y = choice.look(x, self.run, lambda: int(self.counts[1]), tokens * self.block.d_hidden)
        return self._note(y, every=int(self.counts_of_every[3]) > calls)

    def _choice(self, tokens: int) -> Choice:
        return self.choices[min((tokens - 1).bit_length(), BUCKETS - 1)]

    def runs_together(self, x: Tensor) -> bool:
        """Can one operator run this block for inputs like x and what stands around it, as far as can be seen now?"""
        sliced = self.block.first.rows is not None or (self._up is not None and self.block.up.rows is not None)
        alone = self._select is not None or sliced or self.wiring is None or self._on_gpu
        return not alone and self._why_not(x) is None

    def calls_ahead(self, tokens: int) -> int:
        """How many calls for so many tokens need nothing but the operator, if nothing changes meanwhile."""
        return LOOK_EVERY if self.every else self._choice(tokens).calls_ahead

    def way(self, tokens: int) -> object:
        """Of calls for so many tokens: what a record of them depends on beside what the watch looks at."""
        return self.every or self._choice(tokens).every

    def holds(self, tokens: int, way: object) -> bool:
        """Nothing to look at in a call but what the watch looks at: both ways give the same bits."""
        return True

    def counted(self, tokens: int) -> Tensor:
        """What calls for so many tokens add to."""
        return self.counts_of_every if self.way(tokens) else self.counts

    def record(self, watch: Watch, tokens: int) -> dict[str, Any] | None:
        """Have a watch look at what a call looks at, and hand out the weights in the order of the operator.

        Returns:
            What a :class:`~lazyneuron.ops.decoding.layers.LayerForm` says of the block; None where a watch cannot look.
        """
        assert self.wiring is not None
        for name in ("every", "_other_settings", "counts", "counts_of_every"):
            watch.attribute(self, name)
        if not self.wiring.record(watch):
            return None
        biases = []
        for layer in (self._first, self._up, self._down):
            for name in ("rows", "scale") if layer is not None else ():
                watch.taken(layer, "_buffers", name)
            biases.append(layer is not None and watch.taken_if_there(layer, "_buffers", "bias"))
        return {
            "block": (self._form.bits, self._form.group), "activation": self._kind, "parameters": self._parameters,
            "gated": self._up is not None, "rectify_up": self.block.rectifies_up, "first_bias": biases[0],
            "up_bias": biases[1], "down_bias": biases[2], "every": bool(self.way(tokens)),
        }  # fmt: skip

    def credit(self, tokens: int, calls: int, way: object, *, due: bool) -> None:
        """Count calls for so many tokens that ran in a way together with others; ``due``: the next one is looked at."""
        choice = self._choice(tokens)
        self._calls += calls
        self._ran[EVERY if way else SPARSE] += calls
        if not self.every:
            choice.answered(choice.calls_ahead if due else calls)

    @property
    def _on_gpu(self) -> bool:
        return self._interpret or not _held(self._first)[0].is_cpu

    def _call_on_gpu(self, x: Tensor) -> Tensor | None:
        """The block's output, or None where its layers run one by one."""
        if self.every:
            self.last = EVERY
            self._ran[EVERY] += 1
            return None
        self._prepare_for_gpu()
        return self._note(self.run(x), every=False)

    def _prepare_for_gpu(self) -> None:
        """Find out, outside graphs and compilers, what waits for the device."""
        if not self._on_gpu:
            return
        if self.counts.device != self._first.rows.device:
            self.counts = self.counts.to(self._first.rows.device)
        self._gpu_operator = gpu_operators.op("mlp")
        if self._limit is None:
            width, dtype = self._first.in_features, self._first.dtype
            up = None if self._up is None else _part(self.block.up, self._up)
            self._limit = float("inf") if up is None else gpu.limit_of(up, self._form, width, dtype)

    def _run_on_gpu(self, x: Tensor) -> Tensor:
        block, down = self.block, self._down
        up = None if self._up is None else _part(block.up, self._up)
        assert self._limit is not None and self._gpu_operator is not None
        return gpu.run(
            self._gpu_operator, x, _part(block.first, self._first), up, (down.rows, down.scale, down.bias),
            activation=block.activation, rectify_up=block.rectifies_up, form=self._form, limit=self._limit,
            counts=self.counts,
        )  # fmt: skip

    def _note(self, y: Tensor, *, every: bool) -> Tensor:
        self.last = EVERY if every else SPARSE
        self._ran[self.last] += 1
        return y

    def run(self, x: Tensor, every: bool | None = None) -> Tensor:
        """The block's output by the operator; ``every``: whether all rows are read, default as ``self.every``."""
        if self._on_gpu:
            return self._run_on_gpu(x)
        every = self.every if every is None else every
        first, up, form = self._first, self._up, self._form
        counts = self.counts_of_every if every else self.counts
        rows, scale, bias = _part(self.block.first, first)
        down = _held(self._down)
        other = (None, None, None) if up is None else _part(self.block.up, up)
        if self._select is not None:  # what fires depends on the whole token, so all of it is computed first
            z = operators.operators().quantised_linear(x, rows, scale, bias, form.bits, form.group)
            return self._select(
                x, self.block.activation(z), *other, self.block.rectifies_up, *down,
                counts, form.bits, form.group, every,
            )  # fmt: skip
        y: Tensor = self._call(
            x, rows, scale, bias, *other, self.block.rectifies_up, *down, counts,
            form.bits, form.group, self._kind, *self._parameters, every, -1,
        )  # fmt: skip
        return y

    def _why_not(self, x: Tensor) -> str | None:
        """Why the layers have to run for this input, or None."""
        standing = self.standing()
        if standing is not None:
            return standing
        on_cpu = self._is_on_cpu()  # making a device and comparing it takes as long as everything else here
        if not on_cpu:
            if (elsewhere := self._why_elsewhere()) is not None:
                return elsewhere
            if self._select is not None:
                return "an activation that depends on the whole token, for which there is no kernel of a GPU"
        here = isinstance(x, Tensor) and (x.is_cpu if on_cpu else x.device == _held(self._first)[0].device)
        if not here or x.dtype != self._first.dtype:
            return "an input of another device or dtype"
        if x.ndim == 0 or x.shape[-1] != self._first.in_features:
            return "an input of another width"
        if _is_autocast_enabled("cpu" if on_cpu else x.device.type):
            return "autocast"
        if _is_grad_enabled() and x.requires_grad:
            return "a gradient is wanted"
        return None

    def _is_on_cpu(self) -> bool:
        layers: Any = (self._first, self._down) if self._up is None else (self._first, self._down, self._up)
        for layer in layers:
            if not layer._buffers["rows"].is_cpu:
                return False
        return not self._interpret

    def _why_elsewhere(self) -> str | None:
        """Why the bytes cannot be executed where they are, as a sentence, or None."""
        where = _held(self._first)[0].device
        if where.type not in DEVICES:
            return elsewhere(where)
        for layer in (self._down, self._up):
            other = where if layer is None else _held(layer)[0].device
            if other != where:
                return f"Its quantised layers are on several devices, {where} and {other}; move the block to one."
        return None

    def fired(self) -> float | None:
        """Share of the (token, neuron) pairs that fired, in [0, 1]; None before the operator ran."""
        _, fired, tokens, _ = self.counts.tolist()
        return fired / (tokens * self.block.d_hidden) if tokens else None


@contextlib.contextmanager
def every_neuron(model: nn.Module) -> Iterator[None]:
    """Inside, accelerated blocks evaluate every neuron, whatever fires: what sparse execution is compared with.

    Quantised blocks read all rows of the same bytes, and give the same bits; blocks that keep their weights run their
    original path. A model without accelerated blocks runs as ever.

    Args:
        model: on which :func:`lazyneuron.accelerate_` was called, or a copy.
    """
    with contextlib.ExitStack() as stack:
        for run in accelerated_blocks(model):
            if isinstance(run, QuantisedExecution):
                stack.callback(setattr, run, "every", run.every)
                run.every = True
            elif isinstance(run, GpuExecution):
                stack.callback(setattr, run, "off", run.off)
                run.off = True
            else:
                stack.enter_context(_only_dense(run))
        yield


@contextlib.contextmanager
def _only_dense(run: BlockExecution) -> Iterator[None]:
    table, fixed = run.following.table, run.fixed
    run.following.table, run.fixed = (DENSE,) * len(table), True
    try:
        yield
    finally:
        run.following.table, run.fixed = table, fixed
        state = run.current.state
        if state is not None and state.packed is not None:  # weights that changed meanwhile were packed for no path
            run.current.state = run.with_runs(state)


def accelerated_blocks(model: nn.Module) -> list[BlockExecution | GpuExecution | QuantisedExecution]:
    """The executions of a model's blocks, in the order of the acceleration."""
    modules = (*changed_modules(model), *model.modules())  # a replaced module is not part of the model any more
    runs = (getattr(module.__dict__.get("train"), "run", None) for module in modules)
    return [run for run in dict.fromkeys(runs) if isinstance(run, BlockExecution | GpuExecution | QuantisedExecution)]


def _layer(site: LinearSite) -> Quantised:
    assert isinstance(site.module, Quantised)
    return site.module


def _part(site: LinearSite, layer: Quantised) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows, scales and bias of a site; part of them where one layer computes gate and up together."""
    rows, scale, bias = _held(layer)
    if site.rows is None:
        return rows, scale, bias
    part = slice(*site.rows)
    return rows[part], scale[part], None if bias is None else bias[part]


def _held(layer: Quantised) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows, scales and bias of a layer, past torch's look for parameters of these names, 0.6 us each (2026-11)."""
    held: Any = layer._buffers
    return held["rows"], held["scale"], held["bias"]
