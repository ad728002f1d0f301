"""The ways to run the changed model that the demo compares."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lazyneuron.core.batch import call_model


def int8(model: nn.Module) -> nn.Module:
    """A copy with torch's dynamic int8 quantisation of all its linear layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of torch.ao.quantization on each call
        from torch.ao.quantization import quantize_dynamic

        quantize: Any = quantize_dynamic
        quantised: nn.Module = quantize(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    return quantised


def compiled(model: nn.Module, batches: Sequence[Any]) -> tuple[nn.Module | None, str]:
    """A ``torch.compile``d copy that has run on each batch.

    Args:
        model: the model.
        batches: one of each shape that will be timed; each gets a graph of its own, the best case for the compiler.

    Returns:
        The copy and an empty string, or None and one sentence why it cannot be had here.

    Cost: tens of seconds when there is no compiler cache.
    """
    wrapped: Any = torch.compile(copy.deepcopy(model), dynamic=False)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own deprecations
            for batch in batches:
                call_model(wrapped, batch)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # the compiler's errors have no common base class
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return None, f"torch.compile does not work here ({type(error).__name__}: {first[:160]})."
    return wrapped, ""
