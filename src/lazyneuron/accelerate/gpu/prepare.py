"""What stands between a found block on a GPU and its execution: pack it, measure its shape, decide."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lazyneuron.accelerate.gpu import costs as machine
from lazyneuron.accelerate.gpu.costs import BUCKETS, Costs, Shape
from lazyneuron.accelerate.gpu.execution import GpuExecution
from lazyneuron.accelerate.gpu.timing import MODES
from lazyneuron.accelerate.path import DENSE, TRITON
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.receipt import BlockChange

_ASSUMED_UNION = 0.1  # of one token, without data: counts correct it
_WINDOWS = 16


def runs_on_gpu(block: MLPBlock, impl: str) -> bool:
    """Is this a block for the kernels of GPUs?

    Raises:
        ConfigError: an implementation of CPUs was asked for by name.
    """
    if block.up.weight.device.type != "cuda":
        return impl == TRITON.name
    if impl not in ("auto", TRITON.name):
        raise ConfigError(f"impl={impl!r} runs on CPUs, and {block.name or 'the block'} is on a GPU; use 'auto'.")
    return True


@torch.no_grad()
def prepare(
    block: MLPBlock, inputs: Tensor | None, impl: str, progress: Callable[[str], None]
) -> tuple[BlockChange, GpuExecution | None]:
    """Measure and decide; a block whose weights cannot be packed is skipped with the reason."""
    union = _unions(block, inputs)
    first = block.up.weight
    shape = Shape(
        d_in=block.d_in, d_hidden=block.d_hidden, d_out=block.d_out, gated=block.gate is not None, dtype=first.dtype,
        device=first.device,
    )  # fmt: skip
    costs: Costs | None = None
    if impl == "auto":
        progress("Measuring blocks of this shape on this GPU once (up to a minute)")
        costs = machine.costs_of(shape)
    execution = GpuExecution(block, costs, union)
    weights = execution.packed()
    if weights is None:
        return BlockChange(block=block.name, action="skipped", reason=execution.why()), None
    details: dict[str, Any] = {
        "activation": block.activation.kind,
        "path_by_tokens": _by_tokens(execution.tables["captured"]),
        "path_by_tokens_eager": _by_tokens(execution.tables["eager"]),
        "union_density": {str(2**k): share for k, share in union.items()},
        "predicted_us": _predicted(costs, union),
        "added_bytes": weights.added_bytes,
    }
    if inputs is not None:
        details["output_error"] = _output_error(block, execution, inputs)
    worth = [any(execution.tables[mode]) for mode in MODES]
    if not any(worth) and costs is not None and not any(_could_win(costs)):
        return BlockChange(block=block.name, action="dense", reason="Dense is faster here.", details=details), None
    action, reason = _in_words(impl, worth)
    return BlockChange(block=block.name, action=action, reason=reason, details=details), execution


def _in_words(impl: str, worth: Sequence[bool]) -> tuple[str, str]:
    eager, captured = worth
    if impl != "auto":
        return "accelerated", "The path was asked for by name; above 16 tokens dense runs."
    if captured and not eager:
        return (
            "accelerated",
            "Sparse is faster in CUDA graphs; called one by one, dense runs.",
        )
    if captured or eager:
        return "accelerated", "Sparse is faster for some token counts up to 16; otherwise dense runs."
    return "dense", "Dense is faster for every token count at the density of now, which is looked at again."


def _unions(block: MLPBlock, inputs: Tensor | None) -> dict[int, float]:
    """[bucket] shares of neurons that fire for some of so many tokens in a row."""
    if inputs is None or not len(inputs):
        return {k: 1 - (1 - _ASSUMED_UNION) ** (2**k) for k in range(BUCKETS)}
    fires = block.hidden(inputs) != 0
    found: dict[int, float] = {}
    for k in range(BUCKETS):
        windows = torch.split(fires, 2**k)[:_WINDOWS]
        found[k] = float(torch.stack([window.any(0).float().mean() for window in windows]).mean())
    return found


def _by_tokens(table: Sequence[bool]) -> dict[str, str]:
    named = {f"<= {2**k}": TRITON.name if sparse else DENSE.name for k, sparse in enumerate(table)}
    return named | {f"> {2 ** (BUCKETS - 1)}": DENSE.name}


def _predicted(costs: Costs | None, union: dict[int, float]) -> dict[str, dict[str, dict[str, float]]]:
    if costs is None:
        return {}
    return {
        mode: {
            str(2**k): {DENSE.name: costs.dense_us[mode][k], TRITON.name: costs.predicted_us(mode, k, union[k])}
            for k in range(BUCKETS)
        }
        for mode in MODES
    }


def _could_win(costs: Costs) -> list[bool]:
    """[bucket] whether the sparse path would be faster in some mode if nothing fired."""
    none = [costs.choose(mode, 0.0) for mode in MODES]
    return [any(table[k] for table in none) for k in range(BUCKETS)]


def _output_error(block: MLPBlock, execution: GpuExecution, inputs: Tensor) -> dict[str, float]:
    """Largest and root-mean-square difference from the dense block on real inputs, over the output's own RMS."""
    rows = inputs[: 2 ** (BUCKETS - 1)]
    wanted, got = block.forward(rows).double(), execution.sparse(rows).double()
    scale = float(wanted.square().mean().sqrt()) or sys.float_info.min
    difference = got - wanted
    return {
        "largest": float(difference.abs().max()) / scale,
        "rms": float(difference.square().mean().sqrt()) / scale,
    }
