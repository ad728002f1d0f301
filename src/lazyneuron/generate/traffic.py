"""Bytes of weights that one token reads: what its operators were given, and the share of neurons computed."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.quantised.execution import accelerated_blocks
from lazyneuron.generate.decoding import Inputs, decode, settings_for

_STEPS = 3  # tokens; the last one counts
_SHORT = 8  # tokens of the prompt: weights that a token reads do not depend on how much came before
_NO_TOKEN = 2**62  # ends no text, and unlike a least length asks no logits processor to forbid the ends of texts
_FIRST = 3  # rows, scales and bias of a block's first layer, which every token reads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes of weights and scales that the decoding of one token reads; the cache of keys and values is not among them.

    Attributes:
        always: read for every token.
        rows: of neurons that are read when these are computed, all of them together.
    """

    always: float
    rows: float

    def bytes_per_token(self, computed: float | None) -> int:
        """At this share of computed neurons, in [0, 1]; None is all of them."""
        return round(self.always + self.rows * (1.0 if computed is None else computed))


def traffic(model: nn.Module, inputs: Inputs, *, dense: bool = False) -> Traffic:
    """What a token reads, from a few tokens that are decoded for it.

    Args:
        model: a language model in evaluation mode.
        inputs: a prompt.
        dense: of the dense evaluation.
    """
    few = {name: value[:, :_SHORT] for name, value in inputs.items()}
    settings = settings_for(model, max_new_tokens=_STEPS)
    settings.eos_token_id = _NO_TOKEN
    seen = _Reads(model)
    with seen:
        decode(model, few, settings, dense=dense, on_tokens=lambda _: seen.turn())
    sketches, rows = (0, 0) if dense else kept_blocks(model)
    return Traffic(always=seen.always + sketches - rows, rows=seen.sometimes + rows)


def kept_blocks(model: nn.Module) -> tuple[int, int]:
    """Bytes of sketches and of rows in blocks that keep their weights: those run densely while they are watched."""
    states = [run.current.state for run in accelerated_blocks(model) if isinstance(run, BlockExecution)]
    packed = [state.packed for state in states if state is not None and state.packed is not None]
    rows = [t for each in packed for t in (each.first_rows, each.up_rows, each.down_rows) if t is not None]
    return sum(each.sketch.bytes for each in packed), sum(t.nbytes for t in rows)


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the weights that operators are given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        tensors = (*model.parameters(), *model.buffers())
        self._weights = {t.untyped_storage().data_ptr() for t in tensors if t.dim() > 0 and t.numel() > 1}
        self.always = self.sometimes = 0.0
        self._now = [0.0, 0.0]

    def turn(self) -> None:
        """A token is there: what was read for it is what counts, until the next one."""
        self.always, self.sometimes = self._now
        self._now = [0.0, 0.0]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name()
        given = [t for t in args if isinstance(t, Tensor)]
        if name == "lazyneuron::quantised_mlp":
            self._block([args[k] for k in range(1, 7)] + [args[k] for k in range(8, 11)], always=_FIRST)
        elif name == "lazyneuron::sparse_mlp":
            self._block([args[k] for k in (1, 2, 3, 4, 5, 7, 8)], always=2)
        elif name == "lazyneuron::candidates":
            self._now[0] += _size(args[1]) + _size(args[2])
        elif name == "aten::index_select" and args[0].untyped_storage().data_ptr() in self._weights:
            self._now[0] += _size(args[0]) // max(args[0].shape[args[1]], 1) * args[2].numel()
        elif name == "lazyneuron::quantised_down":
            share = float((args[0] != 0).any(tuple(range(args[0].dim() - 1))).float().mean())
            self._now[0] += share * sum(_size(t) for t in given[1:])
        elif name == "aten::embedding":
            self._now[0] += args[1].numel() * args[0].shape[-1] * args[0].element_size()
        elif not func.is_view:
            self._now[0] += sum(_size(t) for t in given if t.untyped_storage().data_ptr() in self._weights)
        return result

    def _block(self, tensors: list[Any], *, always: int) -> None:
        self._now[0] += sum(_size(t) for t in tensors[:always] if t is not None)
        self._now[1] += sum(_size(t) for t in tensors[always:] if t is not None)


def _size(t: Tensor) -> int:
    return t.numel() * t.element_size()


def model_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers, what is tied once."""
    held = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers())
    }
    return sum(held.values())
