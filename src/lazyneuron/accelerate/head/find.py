"""The head of a language model, and whether its logits are what ``generate`` chooses tokens by."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.execution.freshness import unwatchable
from lazyneuron.accelerate.head.execution import CertifiedHead, Sites
from lazyneuron.accelerate.sample import MOST_BATCHES
from lazyneuron.blocks.block import LinearSite
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.ops.sparse_mlp.packed import DTYPES

MOST_ROWS = 64  # hidden states that are kept


def head_of(model: nn.Module) -> LinearSite:
    """The layer that makes the logits of a transformers model.

    Raises:
        ConfigError: the model has none, or one that cannot be certified; the sentence says why.
    """
    ask = getattr(model, "get_output_embeddings", None)
    module = ask() if callable(ask) and callable(getattr(model, "generate", None)) else None
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"Heads of transformers models that generate text are certified, and {type(model).__name__} has none."
        )
    name = next((name for name, one in model.named_modules() if one is module), "")
    site = LinearSite(name=name, module=module)
    why = _why_not(site) or _own_generate(model)
    if why is not None:
        raise ConfigError(f"The head of this {type(model).__name__} cannot be certified: {why}")
    return site


def _own_generate(model: nn.Module) -> str | None:
    from transformers import GenerationMixin

    for name in ("generate", "_sample", "_get_logits_processor"):
        if getattr(type(model), name, None) is not getattr(GenerationMixin, name, None) or name in model.__dict__:
            return f"The model has a method {name} of its own, which may use the logits in other ways."
    return None


def _why_not(site: LinearSite) -> str | None:
    module = site.module
    if isinstance(module.__dict__.get("forward"), CertifiedHead):
        return "It is certified already; restore that change first."
    if type(module) is not nn.Linear:
        return f"{site.name} is a {type(module).__name__}; only plain linear layers are supported."
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return f"{site.name} has hooks or a forward of its own."
    if module._parameters.get("bias") is not None:
        return f"{site.name} has a bias, which torch may add after rounding; heads without one are supported."
    weight = module.weight
    if weight.dtype not in DTYPES or weight.ndim != 2 or weight.numel() == 0 or not weight.is_cpu:
        return f"Its weight is {weight.dtype} of shape {tuple(weight.shape)} on {weight.device}."
    return unwatchable(Sites(linears=(site,)))


@torch.no_grad()
def head_inputs(model: nn.Module, site: LinearSite, batches: Iterable[Any] | None) -> Tensor:
    """Hidden states that enter the head, (up to 64, d_in); makes sure that its output is the model's logits.

    Args:
        model: the model; nothing is changed.
        site: its head.
        batches: inputs; None for those that transformers makes up for every model.

    Raises:
        ConfigError: the logits are not what the head returns.
        DataError: no batches, or such that the model cannot run on.
    """
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        calls.append((args[0].detach().clone(), output.detach().clone()))

    found: list[Tensor] = []
    given = [model.dummy_inputs] if batches is None else batches
    with borrowed(model, observe=True, evaluate=True):
        handle = site.module.register_forward_hook(keep)
        try:
            for batch in itertools.islice(given, MOST_BATCHES):
                calls.clear()
                logits = getattr(call_model(model, batch), "logits", None)
                _check_logits(model, site, calls, logits)
                hidden = calls[0][0]
                found.append(hidden.reshape(-1, hidden.shape[-1])[-MOST_ROWS:])
        finally:
            handle.remove()
    if not found:
        raise DataError("There are no batches to measure on; pass at least one, or leave them out.")
    return torch.cat(found)[-MOST_ROWS:]


def _check_logits(model: nn.Module, site: LinearSite, calls: list[tuple[Tensor, Tensor]], logits: Any) -> None:
    same = (
        len(calls) == 1
        and isinstance(logits, Tensor)
        and logits.shape == calls[0][1].shape
        and torch.equal(logits, calls[0][1].to(logits.dtype))
    )
    if not same:
        raise ConfigError(
            f"The head of this {type(model).__name__} cannot be certified: Its logits are not just what {site.name} "
            "returns; they are scaled, capped or masked afterwards, or are not finite."
        )
