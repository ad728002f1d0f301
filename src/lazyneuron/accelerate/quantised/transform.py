"""Quantising a model's linear layers in place, and executing its sparse blocks on the quantised rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.plan import why_dense
from lazyneuron.accelerate.policy.choice import BUCKETS
from lazyneuron.accelerate.quantised.attention import replace_attention_, takes_part
from lazyneuron.accelerate.quantised.decoder import fuse_decoder_layers_
from lazyneuron.accelerate.quantised.decoder_find import find_decoder_layers
from lazyneuron.accelerate.quantised.exchange import (
    Layer,
    empty_layer,
    exchange_,
    quantise_layers,
    requantised,
)
from lazyneuron.accelerate.quantised.execution import SPARSE, QuantisedExecution
from lazyneuron.accelerate.quantised.growing import leave_growing_caches_out_
from lazyneuron.accelerate.quantised.modules import Quantised
from lazyneuron.accelerate.quantised.norms import find_norms, fuse_norms_
from lazyneuron.accelerate.quantised.plan import Quantisation, plan_quantisation, why_layers
from lazyneuron.accelerate.sample import block_inputs
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import Found, find
from lazyneuron.blocks.splice import splice_
from lazyneuron.blocks.splice.override import Mode
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.replay import replays
from lazyneuron.core.undo import Transaction, transaction
from lazyneuron.ops.quantised.format import Format
from lazyneuron.ops.quantised.operators import operators

Bits = Literal["keep", "int8", "int4"]
Make = Callable[[Sequence[Layer], Callable[[str], None]], dict[str, Quantised]]
VERB = "quantise_"
SEQUENCES = (1, 2, 4, 8)  # decoded together
LAYOUT = 1  # of the bytes that are saved: raised when ops/quantised/format.py changes what they mean


def quantisation_of(weights: str, rest: str, group: int) -> Quantisation | None:
    """The formats of these names; None when everything is kept.

    Raises:
        ConfigError: an unknown name or group size.
    """
    for what, name in (("weights", weights), ("rest", rest)):
        if name not in ("keep", "int8", "int4"):
            raise ConfigError(f"{what} is 'keep', 'int8' or 'int4', got {name!r}.")
    bits = {"keep": None, "int8": Format(bits=8, group=group), "int4": Format(bits=4, group=group)}
    if weights == rest == "keep":
        return None
    return Quantisation(blocks=bits[weights], rest=bits[rest])


def quantise(
    model: nn.Module,
    found: Found,
    quantisation: Quantisation,
    batches: Iterable[Any] | None,
    progress: Callable[[str], None],
    make: Make = quantise_layers,
    interpret: bool = False,
) -> Receipt:
    """Quantise in place, all or nothing; blocks that can be silent are executed as one operator each.

    Args:
        model: any model in evaluation mode.
        found: its blocks.
        quantisation: the formats.
        batches: inputs on which the receipt reports the relative output error of each block.
        progress: told what is being done.
        make: gives the quantised layers by name; of a model that has no weights yet, it reads them.
        interpret: run blocks on a CPU by the kernels of GPUs, in Triton's interpreter.

    Raises:
        ImplUnavailable: the kernels are not built here.
        ShapeError: groups do not divide the rows of a layer.
        AssumptionError: weights that are not finite.
        NoBlocksError: there is no layer to quantise.
    """
    operators()
    plan = plan_quantisation(model, found, quantisation)
    layers, whole = plan.layers, plan.whole
    inputs = {} if batches is None else block_inputs(model, whole, batches)
    wanted = {name: _dense(block, inputs[name]) for block in whole if (name := block.name) in inputs}
    data = [layer.to_data() for layer in layers]
    new = make(layers, progress)
    changes = [_change(block, whole, new) for block in found.blocks]
    changes += [BlockChange(block=r.name, action="skipped", reason=r.reason) for r in found.rejected]
    config = quantisation.config() | {"layout": LAYOUT, "layers": data, "blocks": [block.name for block in whole]}
    if quantisation.rest is not None and all(p.device.type != "cuda" for p in model.parameters()):
        norms, attention = find_norms(model), takes_part(model)
        decoders = find_decoder_layers(model, norms) if attention else {}
        config |= {"norms": norms, "attention": attention}
        config |= {"decoders": {name: layer.to_data() for name, layer in decoders.items()}}
    receipt = Receipt(verb=VERB, config=config, changes=tuple(changes), notes=tuple(plan.kept.values()))
    with transaction(model, receipt.id) as change:
        executions = _apply(change, model, whole, new, config, interpret=interpret)
        measured = {name: _measured(executions[name], inputs[name], wanted[name]) for name in wanted}
        changes = [dataclasses.replace(c, details={**c.details, **measured.get(c.block, {})}) for c in receipt.changes]
        change.receipt = receipt = dataclasses.replace(receipt, changes=tuple(changes))
    return receipt


@replays(VERB)
def quantise_again_(model: nn.Module, receipt: Receipt) -> Receipt:
    """Make the layers of a saved quantisation, empty, for the saved bytes to be loaded into.

    Args:
        model: built as the quantised one was before.
        receipt: of the earlier quantisation.

    Raises:
        CheckpointError: the receipt does not fit the model.
    """
    operators()
    if (layout := receipt.config.get("layout", LAYOUT)) != LAYOUT:
        raise CheckpointError(
            f"The bytes were saved in the layout {layout!r}, this version knows {LAYOUT}; quantise the original anew."
        )
    data = receipt.config["layers"]
    new = {item["name"]: empty_layer(item) for item in data}
    for name, layer in new.items():
        old = model.get_submodule(name)
        if (getattr(old, "out_features", layer.out_features), getattr(old, "in_features", layer.in_features)) != (
            layer.out_features,
            layer.in_features,
        ):
            raise CheckpointError(f"{name} has other sizes than the layer that was saved; build the model as it was.")
    wanted = set(receipt.config["blocks"])
    whole = [block for block in find(model, norms=False).blocks if block.name in wanted] if wanted else []
    if {block.name for block in whole} != wanted:
        raise CheckpointError("The saved quantisation names blocks that this model lacks; build the model as it was.")
    with transaction(model, receipt.id) as change:
        change.receipt = receipt
        _apply(change, model, whole, new, receipt.config)
    return receipt


def _apply(
    change: Transaction,
    model: nn.Module,
    whole: Sequence[MLPBlock],
    new: Mapping[str, Quantised],
    around: Mapping[str, Any],
    *,
    interpret: bool = False,
) -> dict[str, QuantisedExecution]:
    fuse_norms_(change, model, around.get("norms", {}))
    if around.get("attention"):
        replace_attention_(change, model)
    exchange_(change, model, new)
    fuse_decoder_layers_(change, model, around.get("decoders", {}), around.get("norms", {}))
    if "norms" in around:
        leave_growing_caches_out_(change, model, around.get("decoders", {}))
    executions = {}
    for block in whole:
        quantised = requantised(block, new)
        execution = QuantisedExecution(quantised, interpret=interpret)
        execution.wiring = splice_(change, quantised, execution, model=model)
        module = quantised.down.module
        change.set(module, "train", Mode(module, execution))
        executions[block.name] = execution
    return executions


def _change(block: MLPBlock, whole: Sequence[MLPBlock], new: Mapping[str, Quantised]) -> BlockChange:
    layers = list(dict.fromkeys(new[site.name] for site in block.linears if site.name in new))
    details: dict[str, Any] = {}
    if layers:
        stored = sum(layer.stored_bytes for layer in layers)
        kept = sum(layer.weight.numel() * layer.dtype.itemsize for layer in layers)
        details = {"format": layers[0].format.name, "bytes": stored, "added_bytes": stored - kept}
    if block in whole:
        details["path_by_tokens"] = {f"<= {2**k}": SPARSE for k in range(BUCKETS)}
    if block in whole:
        return BlockChange(
            block=block.name,
            action="quantised",
            reason="Rows of neurons that do not fire are not read.",
            details=details,
        )
    if not layers:
        reason = " ".join(["Its weights are kept.", why_dense(block) or ""]).rstrip()
        return BlockChange(block=block.name, action="kept", reason=reason, details=details)
    return BlockChange(
        block=block.name,
        action="dense",
        reason=why_layers(block) or "Not all of its layers could be quantised.",
        details=details,
    )


@torch.no_grad()
def _dense(block: MLPBlock, x: Tensor) -> Tensor:
    return block.forward(x).float()


@torch.no_grad()
def _measured(execution: QuantisedExecution, x: Tensor, wanted: Tensor) -> dict[str, Any]:
    """What quantisation changed in a block's outputs, relative to them, and the shares of pairs and rows that fire."""
    error = (execution.run(x).float() - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float32).tiny)
    fired = execution.fired()
    execution.counts.zero_()
    return {
        "output_error": {"rms": float(error)},
        "shares": {SPARSE: {"computed": fired, "fired": fired}},
        "rows_read_by_sequences": _unions(execution.block, x),
    }


def _unions(block: MLPBlock, x: Tensor) -> dict[str, float]:
    """Share of neurons that fire for at least one of n tokens, which are drawn from all of x (tokens, d_in)."""
    fires = block.activation(block.first.part_of(block.first.module(x))) != 0
    fires = fires[torch.randperm(len(fires), generator=torch.Generator().manual_seed(0))]
    windows = {n: fires[: len(fires) // n * n].reshape(-1, n, fires.shape[1]) for n in SEQUENCES if n <= len(fires)}
    return {str(n): float(window.any(1).double().mean()) for n, window in windows.items()}
