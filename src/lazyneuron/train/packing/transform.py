"""The verb: let a model's blocks keep for their backward only what fires."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice.override import Whole
from lazyneuron.blocks.splice.replace import first_parameter
from lazyneuron.core.arguments import check_model
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.replay import replays
from lazyneuron.core.undo import Transaction, receipts, transaction
from lazyneuron.ops.choice import choose
from lazyneuron.ops.fired.operators import PLAIN
from lazyneuron.train.packing.costs import BlockShape
from lazyneuron.train.packing.overrides import (
    GatedRun,
    PackedActivation,
    PackedDown,
    PackedDropout,
    PackedNorm,
    PackedUp,
)
from lazyneuron.train.packing.plan import firsts, norm_before, plan_packing, stands_whole, targets, why_dense
from lazyneuron.train.packing.steps import SparseSteps, Tally
from lazyneuron.train.packing.trial import tried

VERB = "pack_activations_"


Arithmetic = Literal["dense", "auto", "sparse"]


def pack_activations_(
    model: nn.Module, *, arithmetic: Arithmetic = "dense", blocks: Sequence[MLPBlock] | None = None
) -> Receipt:
    """Let MLP blocks keep for their backward only what fires, as bits and values; the training stays the same.

    With dense arithmetic the forward is the model's own, bit for bit, and gradients are its own to rounding; with
    sparse products so is the output. What is as wide as the hidden layer is kept once: a bit for each neuron, and the
    numbers of those that fire. Call it before DDP, FSDP2 or ``torch.compile`` wraps the model, and after ``sparsify_``.

    Args:
        model: any model with blocks whose activation is exactly zero somewhere (ReLU, squared ReLU, thresholded
            functions, JSReLU; plain or gated).
        arithmetic: ``"dense"``; ``"auto"``: ``down`` and all products of the backward take only what fires, in each
            step in which that is faster by what this machine was measured to need; or ``"sparse"``: in every step where
            it is possible (float32 on the CPU, no autocast, no dropout before ``down``, no hooks that see the
            activation).
        blocks: those to pack, as :func:`lazyneuron.find_blocks` found them in this model; None finds all of them.

    Returns:
        The receipt: for each block what its own code kept of the hidden layer for one token, in bytes, or why it goes
        on doing so. ``restore_`` takes it back.

    Raises:
        NoBlocksError: no block can be packed; the sentence lists the reasons.
        ConfigError: the model is packed already or compiled, ``arithmetic`` is none of these, or the blocks are not
            this model's as it is now.
        ImplUnavailable: sparse products are asked for by name, and the kernels are not built here.

    Example:
        >>> import torch, lazyneuron as lazy
        >>> from lazyneuron.train import pack_activations_
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
        >>> receipt = pack_activations_(model)
        >>> model(torch.randn(4, 8)).sum().backward()
        >>> lazy.restore_(model, receipt)

    Cost:
        Bytes kept for a hidden value of b bytes at density p: 1/8 + p * b, against b for ReLU, 2 b for squared ReLU and
        3 b for a gated block, which keeps 1/8 + 2 p * b. Time: three passes over the hidden layer.
    """
    if arithmetic not in get_args(Arithmetic):
        raise ConfigError(f"arithmetic is one of {', '.join(get_args(Arithmetic))}, got {arithmetic!r}.")
    kernels = _kernels(arithmetic)
    check_model(model)
    if any(receipt.verb == VERB for receipt in receipts(model)):
        raise ConfigError("The activations of this model are packed already; restore that change before packing anew.")
    plan = plan_packing(model, blocks=blocks)
    trials = list(zip(plan.matched, tried(model, plan.matched), strict=True))
    packed = [(block, trial.dense_bytes) for block, trial in trials if trial.difference is None]
    why = {block.name: kernels or why_dense(block) for block, _ in packed}
    changes = [_change(block, model, dense, arithmetic, why[block.name]) for block, dense in packed]
    changes += [BlockChange(block=b.name, action="skipped", reason=t.difference) for b, t in trials if t.difference]
    changes += plan.skipped
    if not packed:
        reasons = sorted({c.reason for c in changes})
        raise NoBlocksError(f"None of the {len(changes)} MLP blocks can keep what fires alone: {' '.join(reasons)}")
    receipt = Receipt(verb=VERB, config={"arithmetic": arithmetic}, changes=tuple(changes))
    with transaction(model, receipt.id) as change:
        change.receipt = receipt
        for block, dense in packed:
            steps = None if why[block.name] else _steps(block, arithmetic)
            _pack(change, model, block, Tally(dense_bytes=dense), steps)
    return receipt


@replays(VERB, machine=True)
def pack_again_(model: nn.Module, receipt: Receipt) -> Receipt:
    """Make a saved packing again."""
    return pack_activations_(model, arithmetic=receipt.config.get("arithmetic", "dense"))


def _kernels(arithmetic: Arithmetic) -> str | None:
    """Why no block's products are sparse, as a sentence, or None."""
    if arithmetic == "dense":
        return "Dense products were asked for."
    return choose("native" if arithmetic == "sparse" else "auto", plain=PLAIN).reason


def _change(
    block: MLPBlock, model: nn.Module, dense_bytes: int, arithmetic: Arithmetic, dense: str | None
) -> BlockChange:
    reason = f"Where its {block.activation.kind} is zero, nothing is kept but a bit."
    details: dict[str, Any] = {"dense_bytes_per_token": dense_bytes, "arithmetic": "dense" if dense else arithmetic}
    if norm_before(block, model) is not None:
        details["input_from"] = block.norm
    if dense:
        details["why_dense"] = dense
    return BlockChange(block=block.name, action="packed", reason=reason, details=details)


def _pack(change: Transaction, model: nn.Module, block: MLPBlock, tally: Tally, steps: SparseSteps | None) -> None:
    dropouts = tuple(model.get_submodule(name) for name in block.dropouts)
    for target in targets(block):
        instead = PackedDown(target, tally, transposed=block.down.transposed, sparse=steps)
        change.set(target, "forward", instead)
    for dropout in dropouts:
        if "forward" not in dropout.__dict__:
            change.set(dropout, "forward", PackedDropout(dropout))
    norm = norm_before(block, model)
    if norm is not None and "forward" not in norm.__dict__:  # blocks may share it
        change.set(norm, "forward", PackedNorm(norm))
    if norm is not None or steps is not None:
        for site in firsts(block):
            up = PackedUp(site.module, transposed=site.transposed, sparse=steps is not None)
            change.set(site.module, "forward", up)
    _pack_activation(change, model, block, dropouts)


def _pack_activation(change: Transaction, model: nn.Module, block: MLPBlock, dropouts: tuple[nn.Module, ...]) -> None:
    site = block.site
    if stands_whole(block):
        assert block.container is not None
        container = model.get_submodule(block.container)
        held = block.activation if site is None else site.function
        run = GatedRun(block, held, dropouts)
        change.set(container, "forward", Whole(container, run, first_parameter(container)))
    elif site is not None and isinstance(site.function, nn.Module):
        if "forward" not in site.function.__dict__:  # blocks may share it
            change.set(site.function, "forward", PackedActivation(site.function, block.activation))
    elif site is not None and not isinstance(site.function, PackedActivation):
        change.set(site.owner, site.attribute, PackedActivation(site.function, block.activation))


def _steps(block: MLPBlock, arithmetic: Arithmetic) -> SparseSteps:
    firsts = 1 if block.gate is None else 2
    shape = BlockShape(d_in=block.d_in, d_hidden=block.d_hidden, d_out=block.d_out, firsts=firsts)
    return SparseSteps(shape=shape, always=arithmetic == "sparse")
