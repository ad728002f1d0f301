"""What the blocks of an accelerated model really do: which paths ran, how often, and why others did not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from torch import nn

from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.gpu.costs import BUCKETS
from lazyneuron.accelerate.gpu.execution import GpuExecution
from lazyneuron.accelerate.path import DENSE, PATHS, TRITON, Path
from lazyneuron.accelerate.quantised.execution import EVERY, SPARSE, QuantisedExecution, accelerated_blocks
from lazyneuron.accelerate.quantised.transform import VERB
from lazyneuron.core.arguments import check_model
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.undo import receipts

VERBS = ("accelerate_", VERB)
Run = BlockExecution | GpuExecution | QuantisedExecution


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockStatus:
    """What one accelerated block did since the acceleration.

    Attributes:
        block: its dotted name.
        last: the path of its last call, or the reason why the original ran or now runs.
        calls: how often it was called, whatever ran; calls inside a compiled graph count when they run.
        sparse_calls: how many of them a sparse path answered.
        computed, fired: shares of the (token, neuron) pairs that the kernels computed exactly, and that fired, in
            [0, 1]; None before any kernel ran.
        paths: path -> calls.
        fallbacks: reason -> calls that the original path answered for it.
        path_by_tokens: the path that is chosen at present for up to this many tokens at once.
        why_by_tokens: of a quantised block, one sentence why, where a call was looked at.
        repacked: how often changed weights were packed anew.
        calls_to_see_all: within how many calls of one token a write that nothing announces is noticed; 0 for never, as
            on a GPU, where :func:`refresh_` looks.
    """

    block: str
    last: str
    calls: int
    sparse_calls: int
    computed: float | None
    fired: float | None
    paths: Mapping[str, int]
    fallbacks: Mapping[str, int]
    path_by_tokens: Mapping[int, str]
    why_by_tokens: Mapping[int, str]
    repacked: int
    calls_to_see_all: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """What an accelerated model did; ``print`` shows it as a table.

    Attributes:
        blocks: one entry for each block whose execution is replaced.
        dense: the other blocks that were looked at, which run as the model has them -> why.
    """

    blocks: tuple[BlockStatus, ...]
    dense: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """A line a block, then the reasons why the original path ran."""
        lines = [f"{'block':<32} {'calls':>8} {'sparse':>8} {'computed':>9} {'fired':>7}  last"]
        for b in self.blocks:
            shares = ["-" if share is None else f"{share:.3f}" for share in (b.computed, b.fired)]
            lines.append(f"{b.block:<32} {b.calls:>8} {b.sparse_calls:>8} {shares[0]:>9} {shares[1]:>7}  {b.last}")
        for b in self.blocks:
            lines += [f"{b.block}: the original path ran {n} times: {why}" for why, n in b.fallbacks.items()]
        lines += [f"{name}: dense: {why}" for name, why in self.dense.items()]
        return "\n".join(lines)


def status(model: nn.Module) -> Status:
    """What really ran in the blocks of an accelerated model.

    Args:
        model: on which :func:`lazyneuron.accelerate_` was called; also a copy, or the original of a compiled model.

    Returns:
        The status of every block whose execution is replaced, and why the others' is not.

    Raises:
        NoBlocksError: the model carries no acceleration, or one that left all of it as it was.
        ConfigError: this is no model.

    Example:
        >>> import torch, lazyneuron as lazy
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
        >>> receipt = lazy.accelerate_(model, impl="gather")
        >>> y = model(torch.zeros(1, 64))
        >>> lazy.status(model).blocks[0].last
        'training mode'
    """
    check_model(model)
    quantised = any(receipt.verb == VERB for receipt in receipts(model))
    runs = accelerated_blocks(model) if quantised else _runs(model)
    blocks = tuple(map(_status_of, runs))
    return Status(blocks=blocks, dense=_dense(model, {block.block for block in blocks}))


def _dense(model: nn.Module, executed: set[str]) -> dict[str, str]:
    """Blocks that the changes in force left as they were, and why, by the latest that says so."""
    changes = [change for receipt in receipts(model) if receipt.verb in VERBS for change in receipt.changes]
    return {change.block: change.reason for change in changes if change.block not in executed}


def _status_of(run: Run) -> BlockStatus:
    if isinstance(run, GpuExecution):
        return _gpu_status(run)
    return _block_status(run) if isinstance(run, BlockExecution) else _quantised_status(run)


def executions(model: nn.Module) -> list[BlockExecution]:
    """The executions of a model's accelerated blocks that keep their weights, in the order of the acceleration.

    Raises:
        NoBlocksError: there are none.
        ConfigError: this is no model.
    """
    return [run for run in _runs(model) if isinstance(run, BlockExecution)]


def _runs(model: nn.Module) -> list[Run]:
    check_model(model)
    found = accelerated_blocks(model)
    if not found:
        raise NoBlocksError("This model carries no acceleration; call accelerate_ on it, or pass the model it was on.")
    return found


def refresh_(model: nn.Module, *, progress: Callable[[str], None] = lambda message: None) -> Receipt:
    """Compare every byte of an accelerated model's weights with what was packed, and pack anew what changed.

    Needed only after writes that nothing announces (through ``.data``, NumPy or a pointer), to have them seen before
    the next call instead of within the calls that :attr:`BlockStatus.calls_to_see_all` says.

    Args:
        model: on which :func:`lazyneuron.accelerate_` was called.
        progress: called with a sentence for each block.

    Returns:
        What was found for each block: ``"current"``, ``"packed"`` anew, or ``"dense"`` with the reason. It undoes
        nothing: the acceleration's own receipt still takes everything back.

    Raises:
        NoBlocksError: the model carries no acceleration.
        ConfigError: this is no model.

    Cost:
        One pass over the weights, and the packing of those that changed.
    """
    changes = []
    for run in _runs(model):
        if not isinstance(run, QuantisedExecution):
            progress(f"Looking at {run.block.name or 'the block'}")
            changes.append(_gpu_refreshed(run) if isinstance(run, GpuExecution) else _refreshed(run))
    return Receipt(verb="refresh_", config={}, changes=tuple(changes))


def _refreshed(run: BlockExecution) -> BlockChange:
    name = run.block.name
    broken = None if run.wiring is None else run.wiring.change()
    if broken is not None:
        reason = f"{broken} The original path runs; restore_ and accelerate_ again to take it in."
        return BlockChange(block=name, action="dense", reason=reason)
    same = run.current.check()
    state = run.current.now()
    if state.packed is None:
        return BlockChange(block=name, action="dense", reason=state.why)
    if same:
        return BlockChange(block=name, action="current", reason="Every byte is what was packed.")
    return BlockChange(block=name, action="packed", reason="The weights had changed.")


def _gpu_refreshed(run: GpuExecution) -> BlockChange:
    name, standing = run.block.name, run.standing()
    if standing is not None:
        return BlockChange(block=name, action="dense", reason=standing)
    if run.check():
        return BlockChange(block=name, action="current", reason="Every byte is what was packed.")
    if run.packed() is None:
        return BlockChange(block=name, action="dense", reason=run.why())
    return BlockChange(block=name, action="packed", reason="The weights had changed.")


def _gpu_status(run: GpuExecution) -> BlockStatus:
    fired, tokens, _ = run.densities.totals()
    ran = dict(run.ran)
    share = fired / (tokens * run.d_hidden) if tokens else None
    return BlockStatus(
        block=run.block.name,
        last=str(run.standing() or run.last),
        calls=sum(ran.values()),
        sparse_calls=ran.get(TRITON, 0),
        computed=share,
        fired=share,
        paths={path.name: ran[path] for path in (DENSE, TRITON) if path in ran},
        fallbacks={why: count for why, count in ran.items() if not isinstance(why, Path)},
        path_by_tokens={2**k: (TRITON if run.tables["captured"][k] else DENSE).name for k in range(BUCKETS)},
        why_by_tokens={},
        repacked=run.repacked,
        calls_to_see_all=0,
    )


def _block_status(run: BlockExecution) -> BlockStatus:
    computed, fired, tokens, _ = run.current.totals()
    pairs = tokens * run.following.d_hidden
    ran = dict(run.ran)
    paths = {path.name: ran[path] for path in PATHS.values() if path in ran}
    return BlockStatus(
        block=run.block.name,
        last=str(run.standing() or run.last),
        calls=sum(ran.values()),
        sparse_calls=sum(count for name, count in paths.items() if name != DENSE.name),
        computed=computed / pairs if pairs else None,
        fired=fired / pairs if pairs else None,
        paths=paths,
        fallbacks={why: count for why, count in ran.items() if not isinstance(why, Path)},
        path_by_tokens={2**k: path.name for k, path in enumerate(run.following.table)},
        why_by_tokens={},
        repacked=run.current.repacked,
        calls_to_see_all=run.current.now().freshness.calls_to_see_all,
    )


def _quantised_status(run: QuantisedExecution) -> BlockStatus:
    ran = dict(run.ran)
    share = run.fired()
    return BlockStatus(
        block=run.block.name,
        last=run.standing() or run.last,
        calls=sum(ran.values()),
        sparse_calls=ran.get(SPARSE, 0),
        computed=share,
        fired=share,
        paths={path: ran[path] for path in (SPARSE, EVERY) if path in ran},
        fallbacks={why: count for why, count in ran.items() if why not in (SPARSE, EVERY)},
        path_by_tokens={2**k: EVERY if choice.every else SPARSE for k, choice in enumerate(run.choices)},
        why_by_tokens={2**k: choice.why for k, choice in enumerate(run.choices) if choice.looked},
        repacked=0,
        calls_to_see_all=1,
    )
