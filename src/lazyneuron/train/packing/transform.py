"""The verb: let a model's blocks keep for their backward only what fires."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice.override import Whole
from lazyneuron.blocks.splice.replace import first_parameter
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.replay import replays
from lazyneuron.core.undo import Transaction, receipts, transaction
from lazyneuron.train.packing.overrides import GatedRun, PackedActivation, PackedDown, PackedDropout, Tally
from lazyneuron.train.packing.plan import plan_packing, stands_whole, targets
from lazyneuron.train.packing.trial import tried

VERB = "pack_activations_"


def pack_activations_(model: nn.Module, *, blocks: Sequence[MLPBlock] | None = None) -> Receipt:
    """Let MLP blocks keep for their backward only what fires, as bits and values; the training stays the same.

    The forward is the model's own, bit for bit; gradients are its own to rounding. What is as wide as the hidden layer
    is kept once: a bit for each neuron, and the numbers of those that fire. Call it before DDP, FSDP2 or
    ``torch.compile`` wraps the model, and after ``sparsify_``.

    Args:
        model: any model with blocks whose activation is exactly zero somewhere (ReLU, squared ReLU, thresholded
            functions, JSReLU; plain or gated).
        blocks: those to pack, as :func:`lazyneuron.find_blocks` found them in this model; None finds all of them.

    Returns:
        The receipt: for each block what its own code kept of the hidden layer for one token, in bytes, or why it goes
        on doing so. ``restore_`` takes it back.

    Raises:
        NoBlocksError: no block can be packed; the sentence lists the reasons.
        ConfigError: the model is packed already or compiled, or the blocks are not this model's as it is now.

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
    if any(receipt.verb == VERB for receipt in receipts(model)):
        raise ConfigError("The activations of this model are packed already; restore that change before packing anew.")
    plan = plan_packing(model, blocks=blocks)
    trials = list(zip(plan.matched, tried(model, plan.matched), strict=True))
    packed = [(block, trial.dense_bytes) for block, trial in trials if trial.difference is None]
    changes = [_change(block, dense) for block, dense in packed]
    changes += [BlockChange(block=b.name, action="skipped", reason=t.difference) for b, t in trials if t.difference]
    changes += plan.skipped
    if not packed:
        reasons = sorted({c.reason for c in changes})
        raise NoBlocksError(f"None of the {len(changes)} MLP blocks can keep what fires alone: {' '.join(reasons)}")
    receipt = Receipt(verb=VERB, config={}, changes=tuple(changes))
    with transaction(model, receipt.id) as change:
        change.receipt = receipt
        for block, dense in packed:
            _pack(change, model, block, Tally(dense_bytes=dense))
    return receipt


@replays(VERB, machine=True)
def pack_again_(model: nn.Module, receipt: Receipt) -> Receipt:
    """Make a saved packing again."""
    return pack_activations_(model)


def _change(block: MLPBlock, dense_bytes: int) -> BlockChange:
    reason = f"Where its {block.activation.kind} is zero, nothing is kept but a bit."
    return BlockChange(block=block.name, action="packed", reason=reason, details={"dense_bytes_per_token": dense_bytes})


def _pack(change: Transaction, model: nn.Module, block: MLPBlock, tally: Tally) -> None:
    dropouts = tuple(model.get_submodule(name) for name in block.dropouts)
    for target in targets(block):
        change.set(target, "forward", PackedDown(target, tally, transposed=block.down.transposed))
    for dropout in dropouts:
        if "forward" not in dropout.__dict__:
            change.set(dropout, "forward", PackedDropout(dropout))
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
