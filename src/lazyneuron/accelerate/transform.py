"""The verb: swap sparse execution into a model where it wins, with the output unchanged."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.gpu import prepare as gpu
from lazyneuron.accelerate.gpu.execution import GpuExecution
from lazyneuron.accelerate.gpu.prepare import runs_on_gpu
from lazyneuron.accelerate.path import TRITON
from lazyneuron.accelerate.plan import check_uncompiled, plan_acceleration
from lazyneuron.accelerate.prepare import Guarantee, Options, prepare
from lazyneuron.accelerate.quantised.plan import Quantisation
from lazyneuron.accelerate.quantised.transform import Bits, quantisation_of, quantise
from lazyneuron.accelerate.sample import MOST_BATCHES, block_inputs
from lazyneuron.accelerate.tensor_parallel import prepare_share
from lazyneuron.blocks import MLPBlock, find, splice_
from lazyneuron.blocks.find import found_in
from lazyneuron.blocks.sharded import is_sharded
from lazyneuron.blocks.splice.override import Mode
from lazyneuron.core.arguments import check_batches, described
from lazyneuron.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ImplUnavailable,
    NoBlocksError,
    TimingWarning,
)
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.replay import replays
from lazyneuron.core.undo import PARTS, restore_, transaction
from lazyneuron.ops.choice import BEST, choose
from lazyneuron.ops.gpu_mlp.available import why_not


def accelerate_(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    guarantee: Guarantee = "exact",
    weights: Bits = "keep",
    rest: Bits = "keep",
    group: int = 32,
    impl: str = "auto",
    blocks: Sequence[MLPBlock] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Receipt:
    """Execute a model's MLP blocks sparsely wherever that is faster, in place, with the output unchanged.

    Neurons are skipped only when they are proved silent, so the result is that of the dense block up to the rounding
    of a different order of sums. Call the model under ``torch.no_grad()`` or ``torch.inference_mode()`` and in
    evaluation mode: with gradients, in training mode and under autocast the original path runs.

    Args:
        model: any model; its parameters are not touched.
        batches: representative inputs, to measure density and times on; without them the machine's cost model and the
            densities seen while running decide.
        guarantee: ``"exact"``, or ``"calibrated"``: the proof's slack is shrunk to what the batches need, and the
            receipt reports the rate of wrongly skipped neurons and the output error.
        weights: of the MLP blocks: ``"keep"``, or ``"int8"`` or ``"int4"``, which quantises their layers: rows of
            neurons that do not fire are not read, and the output is that of the same quantised weights run densely, to
            the last bit. The receipt reports the relative output error of each block.
        rest: of all other linear layers, the language-model head included: ``"keep"``, ``"int8"`` or ``"int4"``.
        group: weights along a row that share a scale when they have 4 bits: 32, 64 or 128.
        impl: ``"auto"``; ``"native"``, ``"gather"`` or a kernel level (``"avx2"`` ...), which runs or raises and is
            then used for every token count; ``"triton"``, the kernels of GPUs, for up to 16 tokens.
        blocks: those to accelerate, as :func:`lazyneuron.find_blocks` found them in this model; None finds all of them.
        progress: called with a sentence when something takes long.

    Returns:
        The receipt: for each block the path of every token count, why, densities, times and memory.

    Raises:
        NoBlocksError: no block can be executed sparsely (any more); the sentence lists the reasons.
        ImplUnavailable: the named implementation cannot run here.
        ConfigError: contradictory options, a compiled model, or blocks that are not this model's as it is now.
        DataError: batches without an item.
        CheckpointError: the cached cost model is corrupt.

    Warns:
        TimingWarning: times measured now contradict the machine's cost model, so that other work may hold the cores.

    Example:
        >>> import torch, lazyneuron as lazy
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64)).eval()
        >>> receipt = lazy.accelerate_(model)
        >>> lazy.restore_(model, receipt)

    Cost:
        Memory: d_hidden * d_in bytes for the sketch and a copy of ``down`` by neuron. Time: once about ten seconds a
        dtype for the machine's cost model, then under a second a block.
    """
    if not callable(progress):
        raise ConfigError(f"progress is a function that takes a sentence, got {described(progress)}; leave it out.")
    if guarantee == "calibrated" and batches is None:
        raise ConfigError("guarantee='calibrated' needs batches to calibrate on.")
    check_uncompiled(model)
    quantisation = quantisation_of(weights, rest, group)
    if quantisation is not None and impl not in ("auto", "native", TRITON.name):
        raise ConfigError(f"Quantised layers run by impl='auto', 'native' or 'triton', got {impl!r}.")
    if guarantee == "calibrated" and weights != "keep":
        raise ConfigError(f"weights={weights!r} has no slack to calibrate; use guarantee='exact' with it.")
    options = Options(guarantee=guarantee, impl=impl)
    isa = _check(options)
    if quantisation is None:
        return _accelerate(model, batches, options, isa, progress, blocks=blocks)
    return _quantised(model, batches, options, quantisation, isa, progress, blocks=blocks)


def _quantised(
    model: nn.Module,
    batches: Iterable[Any] | None,
    options: Options,
    quantisation: Quantisation,
    isa: int,
    progress: Callable[[str], None],
    *,
    blocks: Sequence[MLPBlock] | None,
) -> Receipt:
    """Quantise, then execute the blocks that keep their weights as ever."""
    if batches is not None:
        check_batches(batches)
        batches = list(itertools.islice(batches, MOST_BATCHES))
        if not batches:
            raise DataError("There are no batches to measure on; pass at least one, or leave them out.")
    example = batches[0] if isinstance(batches, list) else None
    found = find(model, example, norms=False) if blocks is None else found_in(model, blocks)
    interpret = options.impl == TRITON.name and all(p.device.type == "cpu" for p in model.parameters())
    if interpret and (reason := why_not(torch.device("cpu"))) is not None:
        raise ImplUnavailable(reason)
    first = quantise(model, found, quantisation, batches, progress, interpret=interpret)
    if quantisation.blocks is not None or not found.blocks:
        return first
    try:
        return _accelerate(model, batches, options, isa, progress, blocks=found.blocks, parts=(first.id,))
    except NoBlocksError:  # nothing to execute sparsely: the quantised layers are what was asked for
        return first
    except BaseException:
        restore_(model, first.id)
        raise


@replays("accelerate_", machine=True)
def accelerate_again_(model: nn.Module, receipt: Receipt) -> Receipt:
    """Make a saved acceleration again, for this machine and without data; what was calibrated keeps its slack.

    Receipts of earlier versions may name ``weights="int8"``, which left the saved weights as they were: the loaded ones
    are quantised, as :func:`accelerate_` does with it.

    Args:
        model: built as the accelerated one was.
        receipt: of the earlier :func:`accelerate_`.

    Raises:
        CheckpointError: the receipt is of another verb or lacks what is needed.
        As :func:`accelerate_`.
    """
    try:
        asked = {name: receipt.config[name] for name in ("guarantee", "impl")}
        quantisation = quantisation_of(receipt.config["weights"], "keep", 32)
        slack = {c.block: float(c.details["slack_factor"]) for c in receipt.changes if "slack_factor" in c.details}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"This is not the receipt of an acceleration ({error}); accelerate anew.") from error
    options = Options(**asked, slack=slack)
    if quantisation is not None:
        return _quantised(model, None, options, quantisation, _check(options), lambda message: None, blocks=None)
    return _accelerate(model, None, options, _check(options), lambda message: None)


def _accelerate(
    model: nn.Module,
    batches: Iterable[Any] | None,
    options: Options,
    isa: int,
    progress: Callable[[str], None],
    *,
    blocks: Sequence[MLPBlock] | None = None,
    parts: tuple[str, ...] = (),
) -> Receipt:
    first, rest = _peek(batches)
    plan = plan_acceleration(model, first, blocks=blocks)
    if not plan.matched:
        raise _nothing_to_do(plan.skipped)
    inputs = block_inputs(model, plan.matched, rest) if rest is not None else {}
    changes: list[BlockChange] = []
    config: dict[str, Any] = {"guarantee": options.guarantee, "weights": "keep", "impl": options.impl}
    config |= {"with_batches": batches is not None} | ({PARTS: list(parts)} if parts else {})
    change: BlockChange
    execution: BlockExecution | GpuExecution | None
    prepared: list[tuple[MLPBlock, BlockExecution | GpuExecution]] = []
    for block in plan.matched:
        progress(f"Packing and timing {block.name or 'the block'}")
        seen = inputs.get(block.name)
        if is_sharded(block):
            if options.impl == TRITON.name:
                raise ConfigError(f"{block.name} is sharded, and shares run on CPUs only; use impl='auto' with it.")
            change, execution = prepare_share(block, seen, options, isa, progress, model=model)
        elif runs_on_gpu(block, options.impl):
            if options.guarantee != "exact":
                raise ConfigError("The kernels of GPUs have no slack to calibrate; use guarantee='exact' with them.")
            change, execution = gpu.prepare(block, seen, options.impl, progress)
        else:
            change, execution = prepare(block, seen, options, isa, progress, model=model)
        changes.append(change)
        if execution is not None:
            prepared.append((block, execution))
    if all(change.action == "skipped" for change in changes):
        raise _nothing_to_do((*changes, *plan.skipped))
    notes = (*_notes(model), *(_dispute(changes) if options.impl == "auto" else ()))
    receipt = Receipt(verb="accelerate_", config=config, changes=(*changes, *plan.skipped), notes=notes)
    with transaction(model, receipt.id) as change_set:
        change_set.receipt = receipt
        for block, execution in prepared:
            execution.wiring = splice_(change_set, block, execution, model=model)
            module = block.down.module
            change_set.set(module, "train", Mode(module, execution))
    return receipt


def _dispute(changes: Sequence[BlockChange]) -> tuple[str, ...]:
    """Say, in a warning too, that measured and predicted times decide differently."""
    factors = [
        max(f for paths in change.details["disputed"].values() for f in paths.values())
        for change in changes
        if change.details.get("disputed")
    ]
    if not factors:
        return ()
    sentence = (
        f"The times measured in {len(factors)} of {len(changes)} blocks are up to {max(factors):.1f} times worse than "
        "this machine's cost model says, as when other work holds the cores; the decision lies half-way between the "
        "two, and the blocks are timed again while they run."
    )
    warnings.warn(sentence, TimingWarning, stacklevel=4)
    return (sentence,)


def _nothing_to_do(skipped: Sequence[BlockChange]) -> NoBlocksError:
    reasons = sorted({change.reason for change in skipped})
    return NoBlocksError(f"None of the {len(skipped)} MLP blocks can be executed sparsely: {' '.join(reasons)}")


def _check(options: Options) -> int:
    if options.guarantee not in ("exact", "calibrated"):
        raise ConfigError(f"guarantee is 'exact' or 'calibrated', got {options.guarantee!r}.")
    if options.impl == TRITON.name:
        if options.guarantee != "exact":
            raise ConfigError(f"impl={TRITON.name!r} has no slack to calibrate; use guarantee='exact' with it.")
        return BEST
    return choose(options.impl, plain="gather", levels=True).isa


def _peek(batches: Iterable[Any] | None) -> tuple[Any, Iterable[Any] | None]:
    if batches is None:
        return None, None
    check_batches(batches)
    iterator = iter(batches)
    for first in iterator:
        if first is None:
            raise DataError("A batch is a Tensor, a tuple or a mapping, got NoneType; leave it out.")
        return first, itertools.chain([first], iterator)
    return None, iterator


def _notes(model: nn.Module) -> tuple[str, ...]:
    reason = choose(plain="gather").reason
    notes = [] if reason is None else [f"Pure PyTorch paths only: {reason}"]
    if model.training:
        notes.append("The model is in training mode, in which the original path runs; call model.eval().")
    return tuple(notes)
