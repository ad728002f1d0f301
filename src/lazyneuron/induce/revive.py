"""Giving neurons that never fire another chance, without changing what the model computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.find import blocks_of
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.replay import lives_in_weights
from lazyneuron.core.undo import Transaction, transaction
from lazyneuron.induce.training.samples import BlockSamples, block_samples

lives_in_weights("revive_")


def revive_(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    share: float = 0.02,
    blocks: Sequence[str] | Sequence[MLPBlock] = ("*",),
) -> Receipt:
    """Let neurons that never fire on these batches fire on a share of the tokens, with outgoing weights of 0.

    A neuron that never fires gets no gradient and stays dead. Its bias is raised so far that it fires on ``share`` of
    the tokens, and its column of ``down``, which took no part in any output, becomes 0. So the outputs on these batches
    stay what they are, and the column learns from the next step on.

    Args:
        model: a model in training; the changed parameters are new objects, so build the optimiser afterwards.
        batches: what counts as never.
        share: of the tokens on which a revived neuron is to fire, in (0, 1).
        blocks: glob patterns of block names, or the blocks themselves, as ``find_blocks`` gave them.

    Returns:
        The receipt, with the revived neurons of each block; ``restore_`` brings the old parameters back.

    Raises:
        ConfigError: ``share`` out of range, or blocks that are of another model or outdated.
        NoBlocksError: there is no block, or no dead neuron that can be revived; the sentence lists the reasons.
        DataError: no tokens run through a block.

    Cost: a forward for each batch, which keeps every block's inputs, and ``up`` at them.

    Source: ours.
    """
    if not 0 < share < 1:
        raise ConfigError(f"`share` is a fraction between 0 and 1, got {share}.")
    wanted = _wanted(model, blocks)
    samples = block_samples(model, wanted, batches=batches)
    shifts = {b.name: _shifts(b, samples[b.name], share=share) for b in wanted}
    changes = tuple(_say(name, s) for name, s in shifts.items())
    if all(change.action == "skipped" for change in changes):
        reasons = " ".join(sorted({c.reason for c in changes}))
        raise NoBlocksError(f"No neuron is to be revived in {len(changes)} MLP blocks: {reasons}")
    receipt = Receipt(
        verb="revive_",
        config={"share": share, "blocks": [b if isinstance(b, str) else b.name for b in blocks]},
        changes=changes,
    )
    with transaction(model, receipt.id) as change:
        change.receipt = receipt
        for block in wanted:
            shift = shifts[block.name]
            if isinstance(shift, Tensor) and bool((shift > 0).any()):
                _revive(change, block, shift)
    return receipt


@torch.no_grad()
def _wanted(model: nn.Module, blocks: Sequence[str] | Sequence[MLPBlock]) -> Sequence[MLPBlock]:
    patterns = [b for b in blocks if isinstance(b, str)]
    given = [b for b in blocks if not isinstance(b, str)]
    if given and not patterns:
        return blocks_of(model, given)
    found = blocks_of(model, None)
    wanted = [b for b in found if any(fnmatchcase(b.name, pattern) for pattern in patterns)]
    if not wanted:
        raise NoBlocksError(
            f"No MLP block is called {' or '.join(patterns)}; they are {', '.join(b.name for b in found)}."
        )
    return wanted


def _shifts(block: MLPBlock, samples: BlockSamples, *, share: float) -> Tensor | str:
    """What each neuron's bias is to rise by, 0 for those that fire; or why none can be revived."""
    zero = block.activation.zero
    if zero.empty or zero.low < zero.high:
        return f"Its activation ({block.activation.kind}) is not zero up to one point."
    if block.first.bias is None:
        return f"{block.first.name} has no bias to raise."
    if block.down.adapted:
        return f"{block.down.name} carries an adapter, whose part would stay; merge it first."
    z = block.pre_activation(samples.inputs)
    dead = ~(block.activation(z) != 0).any(0)
    cut = z.kthvalue(max(1, round((1 - share) * len(z))), dim=0).values
    return torch.where(dead, (zero.left - cut).clamp_min(0) + 1e-6 * z.abs().amax(0), 0.0)


def _say(name: str, shift: Tensor | str) -> BlockChange:
    if isinstance(shift, str):
        return BlockChange(block=name, action="skipped", reason=shift)
    revived = (shift > 0).nonzero().flatten().tolist()
    if not revived:
        return BlockChange(block=name, action="skipped", reason="All of its neurons fire.")
    sentence = f"{len(revived)} neurons that never fired are to fire again."
    return BlockChange(block=name, action="revived", reason=sentence, details={"neurons": revived})


@torch.no_grad()
def _revive(change: Transaction, block: MLPBlock, shift: Tensor) -> None:
    rows = shift > 0
    bias = _fresh(change, block.first, "bias")
    (bias if block.first.rows is None else bias[slice(*block.first.rows)]).add_(shift.to(bias))
    weight = _fresh(change, block.down, "weight")
    (weight.t() if block.down.transposed else weight)[:, rows] = 0


def _fresh(change: Transaction, site: LinearSite, name: str) -> nn.Parameter:
    holder = site.module._modules.get("base_layer") or site.module
    old = holder._parameters[name]
    assert old is not None
    change.set(holder, name, nn.Parameter(old.detach().clone(), requires_grad=old.requires_grad))
    new = holder._parameters[name]
    assert new is not None
    return new
