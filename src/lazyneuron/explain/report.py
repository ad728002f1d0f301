"""The verb: look at a model's gradients and weights, and say why its neurons are as silent as they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import found_in
from lazyneuron.blocks.recorder import fit_mask
from lazyneuron.core.arguments import check_batches, described
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.core.record import Record
from lazyneuron.explain.block_explanation import BlockExplanation
from lazyneuron.explain.capture import Capture
from lazyneuron.explain.losses import HasScale, Loss, samples_in, scale_of, summed_loss
from lazyneuron.explain.marchenko_pastur import SpectrumFit, marchenko_pastur
from lazyneuron.explain.spectrum import SpectralReport, gram_eigenvalues, spectral_concentration
from lazyneuron.explain.sums import Sums, Wanted


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSpectrum:
    """The spectrum of one block's deciding layer.

    Attributes:
        name: the block.
        concentration: how far apart the eigenvalues lie.
        fit: the Marchenko-Pastur law beside the eigenvalues of ``K^T K / neurons``.
    """

    name: str
    concentration: SpectralReport
    fit: SpectrumFit


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainReport:
    """What was found.

    Attributes:
        blocks: gradients and flatness of each block that ran; empty when only spectra were asked for.
        spectra: of each block; empty when they were not asked for.
        loss: mean loss of the samples; NaN when no gradient was asked for.
        notes: sentences about what was left out.
    """

    blocks: tuple[BlockExplanation, ...]
    spectra: tuple[BlockSpectrum, ...]
    loss: float
    notes: tuple[str, ...] = ()

    def to_record(self, *, seed: int | None = None) -> Record:
        """This report as a record of kind ``"explain"``."""
        return Record(kind="explain", data=dataclasses.asdict(self), seed=seed)


def explain(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss | None = None,
    *,
    gradients: bool = True,
    spectra: bool = True,
    mask: str = "attention_mask",
    loss_scale: float | HasScale = 1.0,
    thresholds: Sequence[float] = (),
    diagonality: bool = False,
    histograms: bool = False,
    blocks: Sequence[MLPBlock] | None = None,
) -> ExplainReport:
    """Measure the causes of sparse activations: gradients, flatness and spectra, block by block.

    Args:
        model: any model; parameters, their gradients, random state, mode and hooks stay as they are.
        batches: items as for :func:`lazyneuron.measure`, the first axis counting samples; one at a time is held.
        loss: from (output, batch) to the batch's mean loss, or to one loss for each sample; None takes ``output.loss``.
        gradients: measure derivatives, effective gradients and flatness.
        spectra: decompose the deciding layer of each block.
        mask: key of a batch's mask that is nonzero where a token is real; padding is left out.
        loss_scale: by how much the loss is multiplied already, as under automatic mixed precision: a number, or the
            ``torch.amp.GradScaler``. Gradients go backwards scaled, where float16 needs it, and are divided in float64.
        thresholds: also report the shares of effective gradients below these magnitudes, which unlike the relative
            one depend on the loss's scale.
        diagonality: also compare diagonals with the rest, see :func:`lazyneuron.explain.diagonality`.
        histograms: also count the gradients' magnitudes.
        blocks: the blocks to look at; None finds them.

    Returns:
        The report. All gradients are per sample and unscaled: those of a mean are multiplied by the number of samples.

    Raises:
        NoBlocksError: the model has no MLP block.
        ConfigError: the loss is missing or is neither a scalar nor one number a sample, or ``loss_scale`` is not
            positive.
        DataError: there are no batches, or the model cannot run on one.

    Cost: a forward and a backward to the first block for each batch, in float64 sums; and an eigenvalue problem a
        block.
    """
    scale = scale_of(loss_scale)
    if loss is not None and (not callable(loss) or isinstance(loss, type)):
        raise ConfigError(f"loss is a function from (output, batch) to numbers, got {described(loss)}.")
    if not isinstance(thresholds, Sequence) or not all(isinstance(t, int | float) for t in thresholds):
        raise ConfigError(f"thresholds are a sequence of numbers, got {thresholds!r}.")
    searched = found_in(model, blocks)
    found = searched.blocks
    wanted = Wanted(thresholds=tuple(thresholds), diagonality=diagonality, histograms=histograms)
    sums = {block.name: Sums(block, wanted) for block in found}
    total = math.nan
    if gradients:
        total = _gradients(model, batches, loss, sums=sums, blocks=found, mask=mask, loss_scale=scale)
    ran = tuple(s.result() for s in sums.values() if s.tokens) if gradients else ()
    silent = [name for name, s in sums.items() if not s.tokens] if gradients else []
    return ExplainReport(
        blocks=ran,
        spectra=tuple(map(_spectrum, found)) if spectra else (),
        loss=total,
        notes=(*(f"{name} did not run, or no gradient reached it." for name in silent), *map(str, searched.rejected)),
    )


def _gradients(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss | None,
    *,
    sums: Mapping[str, Sums],
    blocks: Sequence[MLPBlock],
    mask: str,
    loss_scale: float,
) -> float:
    capture = Capture(blocks)
    total, count = 0.0, 0
    with borrowed(model, observe=True), capture.recording(), torch.enable_grad():
        check_batches(batches)
        for batch in batches:
            capture.begin()
            output = call_model(model, batch)
            seen = capture.end()
            if not seen:
                raise DataError("None of the blocks ran in this forward; pass batches that run through them.")
            samples = samples_in(batch)
            summed = summed_loss(output, batch, loss, samples=samples)
            total, count = total + float(summed.detach()) / loss_scale, count + samples
            wanted = [t for c in seen.values() for t in (c.a, c.z) if t is not None]
            found = torch.autograd.grad(summed, wanted, allow_unused=True)
            for (name, captured), g, gv in zip(seen.items(), found[::2], found[1::2], strict=True):
                if g is not None and gv is not None:
                    real = _real(batch, mask, captured.a)
                    sums[name].add(captured, g, gv, samples=samples, real=real, scale=loss_scale)
    if not count:
        raise DataError("There are no batches to explain on; pass at least one.")
    return total / count


def _real(batch: Any, key: str, hidden: Tensor | None) -> Tensor | None:
    mask = batch.get(key) if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or hidden is None:
        return None
    return fit_mask(mask, tuple(hidden.shape[:-1]))


def _spectrum(block: MLPBlock) -> BlockSpectrum:
    weight = block.first.weight.detach()
    neurons, width = weight.shape
    values = gram_eigenvalues(weight.t()) / neurons
    return BlockSpectrum(
        name=block.name,
        concentration=spectral_concentration(weight),
        fit=marchenko_pastur(values, width / neurons),
    )
