"""What one call of ``generate`` needs of the head: its k largest logits, or all of them."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules import module as _torch_module

ALL = "all logits"
TEMPERATURES = (2.0**-10, 2.0**10)  # the proof covers logits divided by one of these


@dataclasses.dataclass
class Request:
    """Of one call of ``generate``, known once its logits processors are.

    Attributes:
        head: whom it is for.
        refused: why the arguments of the call want all logits, or None.
        k: how many of the largest logits count; None for all.
        why: one sentence why all are wanted.
    """

    head: object
    refused: str | None = None
    k: int | None = None
    why: str = "The call has not told what it does with the logits."


_current: contextvars.ContextVar[Request | None] = contextvars.ContextVar("lazyneuron_head_request", default=None)


def current(head: object) -> Request | None:
    """The request of the call of ``generate`` that runs in this thread and is for this head, or None."""
    request = _current.get()
    return request if request is not None and request.head is head else None


@contextlib.contextmanager
def requested(head: object, refused: str | None) -> Iterator[Request]:
    """Within this a head may be asked for a part of its logits; until something decides, for all of them."""
    request = Request(head=head, refused=refused)
    token = _current.set(request)
    try:
        yield request
    finally:
        _current.reset(token)


def why_all(arguments: Mapping[str, Any]) -> str | None:
    """Why the arguments of a call of ``generate`` want all logits, or None when its processors decide."""
    for name in ("custom_generate", "assistant_model", "prefix_allowed_tokens_fn"):
        if arguments.get(name) is not None:
            return f"{name} was passed."
    for criterion in arguments.get("stopping_criteria") or ():
        if not type(criterion).__module__.startswith("transformers."):  # it may call the model
            return f"A stopping criterion of its own ({type(criterion).__name__}) was passed."
    return None


def decide(request: Request, model: nn.Module, config: Any, processors: Sequence[Any]) -> None:
    """Set what is wanted, from what will really be done with the logits."""
    wanted = request.refused or _largest(model, config, processors)
    if isinstance(wanted, int):
        request.k = wanted
    else:
        request.k, request.why = None, wanted


def _largest(model: nn.Module, config: Any, processors: Sequence[Any]) -> int | str:
    """How many of the largest logits decide the next token, or why all do."""
    from transformers.generation import logits_process as known

    mode = str(getattr(config.get_generation_mode(), "value", "unknown"))
    if mode not in ("greedy_search", "sample"):
        return f"The tokens are chosen by {mode.replace('_', ' ')}."
    for name in ("output_scores", "output_logits", "is_assistant"):
        if getattr(config, name, None):
            return f"{name} is set."
    if getattr(config, "cache_implementation", None) == "paged":
        return "Requests are batched continuously."
    if model._forward_hooks or _torch_module._global_forward_hooks:
        return "A forward hook may look at the model's logits."
    steps = list(processors)
    if not config.do_sample:
        return 1 if not steps else f"{type(steps[0]).__name__} changes the logits."
    if steps and type(steps[0]) is known.TemperatureLogitsWarper:
        low, high = TEMPERATURES
        if not low <= float(steps[0].temperature) <= high:
            return f"A temperature of {steps[0].temperature} is outside of {low} to {high}."
        steps = steps[1:]
    if not steps:
        return "Tokens are sampled from all entries; set top_k."
    if type(steps[0]) is not known.TopKLogitsWarper:
        return f"{type(steps[0]).__name__} comes before top_k."
    return int(steps[0].top_k)  # what comes behind it sees the same numbers as ever
