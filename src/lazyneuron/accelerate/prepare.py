"""What stands between a found block and its execution: pack it, time it, decide."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.execution.checks import measure_checks
from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.execution.freshness import Freshness
from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.accelerate.machine import costs
from lazyneuron.accelerate.machine.cost_model import Line
from lazyneuron.accelerate.path import DENSE, GATHER, Path, sparse_paths
from lazyneuron.accelerate.policy.choice import BUCKETS, Candidates, Table, predict_candidates
from lazyneuron.accelerate.policy.following import Following
from lazyneuron.accelerate.policy.tune import Decision, decide
from lazyneuron.accelerate.slack.calibrated import calibrated_slack
from lazyneuron.blocks import MLPBlock
from lazyneuron.core.errors import LazyNeuronError
from lazyneuron.core.receipt import BlockChange
from lazyneuron.ops.sparse_mlp import native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

Guarantee = Literal["exact", "calibrated"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What :func:`lazyneuron.accelerate_` was asked for.

    Attributes:
        guarantee, impl: as there.
        slack: by block, the factor that an earlier calibration found.
    """

    guarantee: Guarantee
    impl: str
    slack: Mapping[str, float] = dataclasses.field(default_factory=dict)


def prepare(
    block: MLPBlock,
    inputs: Tensor | None,
    options: Options,
    isa: int,
    progress: Callable[[str], None],
    *,
    model: nn.Module,
    kind: type[BlockExecution] | None = None,
) -> tuple[BlockChange, BlockExecution | None]:
    """Pack and decide; a block that cannot be packed is skipped with the reason.

    Args:
        block, inputs, options, isa, progress: as in :func:`lazyneuron.accelerate_`.
        model: the block is in it.
        kind: what executes the block; one that is named is there even where dense always wins.
    """
    try:
        freshness = Freshness(block)  # before the weights are read
        packed = pack(block)
    except LazyNeuronError as error:
        return BlockChange(block=block.name, action="skipped", reason=str(error)), None
    factor = options.slack.get(block.name, 1.0)
    report: dict[str, float] = {}
    if options.guarantee == "calibrated":
        if inputs is not None:
            factor, report = calibrated_slack(packed, inputs)
        report["slack_factor"] = factor
        packed = packed.with_slack(factor)
    named = options.impl != "auto"
    paths = (GATHER,) if options.impl == GATHER.name else sparse_paths()
    candidates = _candidates(block, packed, paths, named, progress)
    if not named:
        checks_us = measure_checks(block, packed, freshness, paths[0], model=model)
        candidates = dataclasses.replace(candidates, checks_us=checks_us)
    decision = decide(block, packed, candidates, inputs, isa=isa)
    table = (paths[0],) * BUCKETS if named else decision.table
    details = _details(block, packed, decision, table, named=named) | report
    if inputs is not None:
        details["output_error"] = _output_error(block, packed, paths[0], inputs, isa)
    if kind is None and set(table) == {DENSE} and not any(map(decision.candidates.worth_probing, range(BUCKETS))):
        return BlockChange(block=block.name, action="dense", reason="Dense is faster here.", details=details), None
    execution = (kind or BlockExecution)(
        block,
        packed,
        freshness=freshness,
        following=Following(decision.candidates, table, decision.shares, packed.d_hidden),
        slack_factor=factor,
        isa=isa,
        fixed=named,
    )
    action, reason = _in_words(table, named)
    return BlockChange(block=block.name, action=action, reason=reason, details=details), execution


def _in_words(table: Table, named: bool) -> tuple[str, str]:
    """The action, and why: what runs densely is called dense."""
    if named:
        return "accelerated", "The path was asked for by name."
    dense = [k for k, path in enumerate(table) if path is DENSE]
    if len(dense) == len(table):
        return "dense", "Dense is faster for every token count now; it is timed again while it runs."
    if not dense:
        return "accelerated", "Sparse is faster for every token count."
    if dense == list(range(dense[0], len(table))):
        return "accelerated", f"Sparse is faster up to {2 ** (dense[0] - 1)} tokens at once; above, dense runs."
    counts = ", ".join(str(2**k) for k in dense)
    return "accelerated", f"Sparse is faster except at up to {counts} tokens at once, where dense runs."


def _candidates(
    block: MLPBlock, packed: PackedBlock, paths: tuple[Path, ...], named: bool, progress: Callable[[str], None]
) -> Candidates:
    if named:  # nothing is to be decided, so nothing has to be measured first; its own times correct this
        flat = (Line(fixed_us=1.0, slope_us=0.0),) * BUCKETS
        return Candidates(dense_us=(1.0,) * BUCKETS, lines=dict.fromkeys(paths, flat), rows=1)
    dtype = costs.timed_as(packed.dtype)
    if not costs.are_known(dtype):
        progress("Measuring this machine once (about ten seconds)")
    return predict_candidates(block, costs.cost_model_for(dtype), paths)


def _details(block: MLPBlock, packed: PackedBlock, decision: Decision, table: Table, *, named: bool) -> dict[str, Any]:
    return {
        "activation": block.activation.kind,
        "path_by_tokens": {f"<= {2**k}": path.name for k, path in enumerate(table)},
        "shares": {path.name: shares._asdict() for path, shares in decision.shares.items()},
        "measured_us": _by_tokens(decision.times),
        "predicted_us": _predicted(decision, table, decision.times if named else range(BUCKETS)),
        "disputed": _by_tokens(decision.disputed),
        "added_bytes": packed.added_bytes,
    }


def _by_tokens(facts: Mapping[int, Mapping[Path, float]]) -> dict[str, dict[str, float]]:
    """What is known of buckets and paths, by their names."""
    return {str(2**k): {path.name: v for path, v in paths.items()} for k, paths in sorted(facts.items())}


def _predicted(decision: Decision, table: Table, buckets: Iterable[int]) -> dict[str, dict[str, float]]:
    """Times of dense and of the chosen path, corrected by what was measured; empty without inputs to measure on."""
    if not decision.shares:
        return {}
    time_us = decision.candidates.time_us
    return _by_tokens({k: {path: time_us(path, k, decision.shares) for path in (DENSE, table[k])} for k in buckets})


@torch.no_grad()
def _output_error(block: MLPBlock, packed: PackedBlock, path: Path, inputs: Tensor, isa: int) -> dict[str, float]:
    """Largest and root-mean-square difference from the dense block on real inputs, over the output's own RMS."""
    rows = inputs[:256]
    wanted = block.forward(rows).double()
    got = path.runner(packed, native.new_counts(), isa=isa)(rows).double()
    scale = float(wanted.square().mean().sqrt()) or sys.float_info.min
    difference = got - wanted
    return {
        "largest": float(difference.abs().max()) / scale,
        "rms": float(difference.square().mean().sqrt()) / scale,
    }
