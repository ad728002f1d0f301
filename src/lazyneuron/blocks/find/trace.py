"""Watch the parts of a module while an input runs through it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lazyneuron.blocks.activation import Activation, DeclaresActivation
from lazyneuron.blocks.block import LinearSite
from lazyneuron.blocks.splice.override import Pass
from lazyneuron.core.batch import call_model

_ROWS = 8  # tokens kept of each tensor
_TOKENS = 4
_FUNCTIONS = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    functools.partial,
    torch.jit.ScriptFunction,
    Activation,
    Pass,
)

Replace = Mapping[str, Callable[[Tensor], Tensor]]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a module, or of a function that a module holds as an attribute.

    Attributes:
        name: of the module, or of the function's owner.
        attribute: of the function, else None.
        depth: how many watched calls it was made within.
        input, output: first rows of the first tensor in and of the tensor out.
        alone: True when one tensor went in, nothing else, and one tensor came out.
    """

    name: str
    attribute: str | None
    depth: int
    input: Tensor
    output: Tensor
    alone: bool


@dataclasses.dataclass(frozen=True)
class Trace:
    """What one forward of a module showed.

    Attributes:
        name, module: the module that ran.
        linears: first calls of linear layers, by name, in order.
        calls: calls of everything else, in the order of their ends.
        dropped: inputs of functional dropout.
        result: the tensors that came out.
        again: runs the module on the same input once more, with outputs of linear layers replaced.
    """

    name: str
    module: nn.Module
    linears: dict[str, Call]
    calls: list[Call]
    dropped: list[Tensor]
    result: list[Tensor]
    again: Callable[[Replace], Trace]

    def module_of(self, call: Call) -> nn.Module:
        """The module that a call was of."""
        return self.module.get_submodule(call.name.removeprefix(self.name).lstrip("."))

    @functools.cached_property
    def declaring(self) -> tuple[tuple[Call, DeclaresActivation], ...]:
        """The calls of modules that declare their activation, each with its module."""
        modules = ((call, self.module_of(call)) for call in self.calls if call.attribute is None)
        return tuple((call, module) for call, module in modules if isinstance(module, DeclaresActivation))


def trace_locally(name: str, module: nn.Module, linears: Mapping[str, LinearSite], *, width: int) -> Trace | None:
    """Run a module on random tokens of some width.

    Returns:
        The trace, or None when the module cannot be called with such a tensor and nothing else of weight.
    """
    first = next(iter(linears.values())).weight
    generator = torch.Generator().manual_seed(7)
    dtype = first.dtype if first.dtype.is_floating_point else torch.float32
    x = torch.randn(1, _TOKENS, width, generator=generator, device="cpu").to(first.device, dtype)
    for arguments in _guesses(module, x):
        run = functools.partial(_trace, name, module, linears, functools.partial(module, *arguments))
        try:
            trace = run({})
        except Exception:
            continue
        return trace if trace.linears else None
    return None


def trace_model(model: nn.Module, example: Any, linears: Mapping[str, LinearSite]) -> Trace:
    """Run the whole model on one batch item."""
    return _trace("", model, linears, lambda: call_model(model, example), {})


def _guesses(module: nn.Module, x: Tensor) -> Iterator[tuple[Any, ...]]:
    """Arguments to try: the tokens, and for further required parameters nothing or the tokens again."""
    try:
        parameters = inspect.signature(type(module).forward).parameters.values()
    except (TypeError, ValueError):
        parameters = []  # type: ignore[assignment]
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    more = max(len(required) - 2, 0)  # self and x
    if more:
        yield (x, *[None] * more)
        yield (x, x.new_ones(1, 1, 1, _TOKENS), *[None] * (more - 1))
    yield (x, *[x] * more)
    yield (x[0], *[x[0]] * more)


def _trace(
    name: str,
    module: nn.Module,
    linears: Mapping[str, LinearSite],
    run: Callable[[], Any],
    replace: Replace,
) -> Trace:
    watch = _Watch(name, module, linears, replace)
    with watch, watch.dropout:
        result = run()
    return Trace(
        name=name,
        module=module,
        linears=watch.linears,
        calls=watch.calls,
        dropped=watch.dropout.inputs,
        result=[leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)],
        again=functools.partial(_trace, name, module, linears, run),
    )


def first_rows(t: Tensor) -> Tensor:
    """A copy of the first tokens of a tensor, as (tokens, width)."""
    if t.ndim == 0 or t.numel() == 0 or t.is_sparse or t.is_nested:
        return torch.empty(0, 0, device="cpu")
    few = t.detach()[tuple(slice(_ROWS) for _ in t.shape[:-1])]  # first, so that no large tensor is copied
    return few.reshape(-1, t.shape[-1])[:_ROWS].clone()


class _Dropout(TorchFunctionMode):
    """Notes what goes into functional dropout, which does nothing in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.dropout and args and isinstance(args[0], Tensor):
            self.inputs.append(first_rows(args[0]))
        return func(*args, **(kwargs or {}))


class _Watch:
    """Hooks on every module and wrappers around the functions that modules hold; all are taken off at the end."""

    def __init__(self, name: str, module: nn.Module, linears: Mapping[str, LinearSite], replace: Replace) -> None:
        self.linears: dict[str, Call] = {}
        self.calls: list[Call] = []
        self.dropout = _Dropout()
        self._name = name
        self._module = module
        self._sites = linears
        self._replace = replace
        self._open: list[tuple[object, Tensor | None, bool]] = []
        self._handles: list[Any] = []
        self._wrapped: list[tuple[dict[str, Any], str, Any]] = []

    def __enter__(self) -> None:
        inside_linear: tuple[str, ...] = ()
        for name, module in self._module.named_modules(prefix=self._name):
            if name.startswith(inside_linear):
                continue
            if name in self._sites:
                inside_linear += (name + ".",)
            else:
                self._wrap_functions(name, module)
            self._handles.append(module.register_forward_pre_hook(self.begin, with_kwargs=True))
            self._handles.append(module.register_forward_hook(functools.partial(self._after, name), with_kwargs=True))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for held, attribute, function in self._wrapped:
            held[attribute] = function

    def _wrap_functions(self, name: str, module: nn.Module) -> None:
        held = module.__dict__
        for attribute, function in list(held.items()):
            if attribute.startswith("_") or attribute == "forward" or not isinstance(function, _FUNCTIONS):
                continue
            self._wrapped.append((held, attribute, function))
            held[attribute] = _Wrapper(function, self, name, attribute)

    def _after(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if isinstance(output, Tensor) and name in self._replace:
            output = self._replace[name](output)
        call = self.end(module, name, None, output)
        if name in self._sites:
            if call is not None:
                self.linears.setdefault(name, call)
        elif call is not None:
            self.calls.append(call)
        return output

    def begin(self, key: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A call starts; its input is copied now, because the call may overwrite it."""
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        self._open.append((key, first_rows(tensors[0]) if tensors else None, len(args) == 1 and not kwargs))

    def end(self, key: object, name: str, attribute: str | None, output: Any) -> Call | None:
        """An open call ends, and with it those inside that ended in an exception which somebody caught."""
        opened, x, alone = self._open.pop()
        while opened is not key:
            opened, x, alone = self._open.pop()
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        if x is None or not tensors:
            return None
        return Call(name, attribute, len(self._open), x, first_rows(tensors[0]), alone and tensors[0] is output)


class _Wrapper:
    """A function that notes its calls."""

    def __init__(self, function: Callable[..., Any], watch: _Watch, name: str, attribute: str) -> None:
        self._function = function
        self._watch = watch
        self._name = name
        self._attribute = attribute

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._watch.begin(self, args, kwargs)
        output = self._function(*args, **kwargs)
        call = self._watch.end(self, self._name, self._attribute, output)
        if call is not None:
            self._watch.calls.append(call)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)
