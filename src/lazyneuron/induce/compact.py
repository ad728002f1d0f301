"""The verb: remove neurons that never fire, which makes dense execution faster everywhere."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.find import blocks_of
from lazyneuron.core.arguments import check_batches
from lazyneuron.core.errors import CheckpointError, ConfigError, NoBlocksError
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.replay import replays
from lazyneuron.core.undo import Transaction, transaction
from lazyneuron.induce.modules.zeroth_bias import ZerothBias
from lazyneuron.induce.saving import watch_saving_
from lazyneuron.induce.silent import proved_silent
from lazyneuron.measure.measurement import measure

Mode = Literal["proved", "observed"]


def compact_(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    mode: Mode = "proved",
    blocks: Sequence[MLPBlock] | None = None,
) -> Receipt:
    """Take silent neurons out of a model's MLP blocks, in place; layers become narrower.

    Args:
        model: any model; blocks may end up with different numbers of neurons.
        batches: inputs to observe, needed for ``mode="observed"``.
        mode: ``"proved"`` removes neurons that are silent for every input, by the norm in front: the output does not
            change. ``"observed"`` removes those that never fired on the batches: on other inputs they might have.
        blocks: the blocks to narrow, as ``find_blocks`` gave them; None finds all.

    Returns:
        The receipt, with the neurons kept in each block; :func:`lazyneuron.restore_` brings the others back.

    Raises:
        NoBlocksError: there is no block, or none with a neuron to remove; the sentence lists the reasons.
        ConfigError: an unknown mode, batches that are missing, or blocks that are of another model or outdated.

    Cost: the memory of the narrower layers beside the old ones, which undoing needs.

    Source: ours.
    """
    if mode not in ("proved", "observed"):
        raise ConfigError(f"mode is 'proved' or 'observed', got {mode!r}.")
    if mode == "observed" and batches is None:
        raise ConfigError("mode='observed' needs batches to observe; pass them, or use mode='proved'.")
    if batches is not None:
        check_batches(batches)
    blocks = blocks_of(model, blocks)
    silent = _proved(model, blocks) if mode == "proved" else _observed(model, blocks, batches or ())
    changes, kept = [], {}
    for block in blocks:
        change, rows = _decide(block, silent[block.name], model)
        changes.append(change)
        if rows is not None:
            kept[block.name] = rows
    if not kept:
        reasons = sorted({change.reason for change in changes})
        raise NoBlocksError(f"No neuron can be removed from the {len(blocks)} MLP blocks: {' '.join(reasons)}")
    receipt = Receipt(verb="compact_", config={"mode": mode}, changes=tuple(changes))
    return _narrow(model, {block.name: block for block in blocks}, kept, receipt)


@replays("compact_")
def compact_again_(model: nn.Module, receipt: Receipt) -> Receipt:
    """Remove the same neurons from a fresh model.

    Raises:
        CheckpointError: the receipt is of another verb or does not fit the model.
    """
    blocks = {block.name: block for block in blocks_of(model, None)}
    try:
        kept = {c.block: torch.tensor(c.details["kept"]) for c in receipt.changes if c.action == "compacted"}
        fits = all(int(rows.max()) < blocks[name].d_hidden for name, rows in kept.items())
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"This is not the receipt of a compaction of this model ({error}).") from error
    if not fits:
        raise CheckpointError("The saved compaction keeps neurons that this model does not have.")
    return _narrow(model, blocks, kept, Receipt(verb="compact_", config=receipt.config, changes=receipt.changes))


def _narrow(model: nn.Module, blocks: Mapping[str, MLPBlock], kept: Mapping[str, Tensor], receipt: Receipt) -> Receipt:
    with transaction(model, receipt.id) as change:
        for name, rows in kept.items():
            block = blocks[name]
            for site in (block.gate, block.up):
                if site is not None:
                    _keep_outputs(change, site, rows)
            _keep_inputs(change, block.down, rows)
        change.receipt = receipt
        watch_saving_(change, receipt)
    return receipt


def _proved(model: nn.Module, blocks: Sequence[MLPBlock]) -> dict[str, Tensor | str]:
    found: dict[str, Tensor | str] = {}
    for block in blocks:
        if block.norm is None:
            found[block.name] = "No norm in front of it was found, so nothing bounds its input."
            continue
        if any(isinstance(part, ZerothBias) for part in model.get_submodule(block.norm).children()):
            found[block.name] = "A zeroth bias between its norm and it moves its input beyond what the norm bounds."
            continue
        silent = proved_silent(block, model.get_submodule(block.norm))
        found[block.name] = (
            silent
            if silent is not None
            else "Nothing can be proved: its activation is zero nowhere, or its norm is neither LayerNorm nor RMSNorm."
        )
    return found


def _observed(model: nn.Module, blocks: Sequence[MLPBlock], batches: Iterable[Any]) -> dict[str, Tensor | str]:
    found: dict[str, Tensor | str] = {b.name: "It did not run." for b in blocks}
    for seen in measure(model, batches, blocks=blocks).blocks:
        if seen.tokens:
            found[seen.name] = seen.firing_counts == 0
    return found


def _decide(block: MLPBlock, silent: Tensor | str, model: nn.Module) -> tuple[BlockChange, Tensor | None]:
    reason = silent if isinstance(silent, str) else _why_not(block, model)
    if reason is None and isinstance(silent, Tensor) and not bool(silent.any()):
        reason = "All of its neurons can fire."
    if reason is not None or isinstance(silent, str):
        return BlockChange(block=block.name, action="skipped", reason=str(reason)), None
    rows = (~silent).nonzero().flatten()
    if not len(rows):  # a layer without neurons is one that some kernels do not take
        rows = torch.zeros(1, dtype=torch.long)
    removed = block.d_hidden - len(rows)
    details = {"kept": rows.tolist(), "removed": removed, "d_hidden": len(rows)}
    sentence = f"{removed} of {block.d_hidden} neurons never fire."
    return BlockChange(block=block.name, action="compacted", reason=sentence, details=details), rows


def _why_not(block: MLPBlock, model: nn.Module) -> str | None:
    if block.refusal is not None:
        return block.refusal
    if not block.activation.elementwise:
        return f"What fires under {block.activation.kind} depends on all of its neurons, so none can be removed."
    if any(site.rows is not None for site in block.linears):
        return "Its gate and up are one layer, which other code takes apart in the middle."
    holders = collections.Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for site in block.linears:
        for p in site.module._parameters.values():
            if p is not None and holders[id(p)] > 1:
                return f"The weights of {site.name} are used elsewhere too."
    return None


def _keep_outputs(change: Transaction, site: LinearSite, rows: Tensor) -> None:
    _replace(change, site, "weight", 1 if site.transposed else 0, rows)
    _replace(change, site, "bias", 0, rows)
    for name in ("out_features", "nf"):  # "nf" is GPT-2's
        if name in site.module.__dict__:
            change.set(site.module, name, len(rows))


def _keep_inputs(change: Transaction, site: LinearSite, rows: Tensor) -> None:
    _replace(change, site, "weight", 0 if site.transposed else 1, rows)
    for name in ("in_features", "nx"):
        if name in site.module.__dict__:
            change.set(site.module, name, len(rows))


def _replace(change: Transaction, site: LinearSite, name: str, axis: int, rows: Tensor) -> None:
    old = site.module._parameters.get(name)
    if old is not None:
        new = old.detach().index_select(axis, rows.to(old.device)).contiguous()
        change.set(site.module, name, nn.Parameter(new, requires_grad=old.requires_grad))
