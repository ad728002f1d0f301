"""Silencing and refitting blocks in closed form: a quantile for the bias, a ridge regression for ``down``.

No gradient is taken, and the cost is that of a few forwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce.training.samples import BlockSamples


def thresholds_for(
    blocks: Sequence[MLPBlock], samples: Mapping[str, BlockSamples], *, density: float
) -> dict[str, Activation]:
    """For each block the FATReLU that would leave it with a given density.

    It jumps at its threshold, so that rounding errors of two ways to compute it show where a pre-activation is next to
    it; :func:`shift_bias_` does not have this fault, but needs a bias and keeps less of the function.

    Args:
        blocks: the blocks of the original.
        samples: its inputs, as :func:`block_samples` returned them.
        density: share of the block's pre-activations that are to lie above the threshold, in (0, 1).

    Returns:
        The activation functions by block name; their shift is a quantile of the block's pre-activations.

    Raises:
        ConfigError: the density is not a fraction.
        DataError: a block has no samples.

    Cost: ``up`` at all samples and a partial sort; at most 2**21 pre-activations a block are looked at.
    """
    return {
        block.name: Activation("fatrelu", (_quantile(block, samples.get(block.name), density=density),))
        for block in blocks
    }


@torch.no_grad()
def offsets_for(
    blocks: Sequence[MLPBlock], samples: Mapping[str, BlockSamples], *, density: float | Mapping[str, float]
) -> dict[str, Activation]:
    """For each GELU block the function that is GELU, less a constant, where it fires, and leaves it with a density.

    A neuron fires above a threshold, the same for the whole block. What is subtracted there is the mean of GELU over
    what falls silent, so that a silent neuron stands for that mean once :func:`refit_down_` has moved the bias. The
    shape above the threshold is the original's, tails included, which no rectifier with a shifted bias keeps. The
    function jumps at its threshold, as a FATReLU does, by a few hundredths at densities around 0.3.

    Args:
        blocks: the blocks of the original, with GELU.
        samples: their inputs, as :func:`block_samples` returned them.
        density: share of a block's pre-activations that are to lie above the threshold, in (0, 1); one for all blocks,
            or one for each by name.

    Returns:
        The activation functions by block name, for ``Relufy(per_block=...)``.

    Raises:
        ConfigError: a density is not a fraction or missing, or a block's activation is not GELU.
        DataError: a block has no samples.

    Cost: ``up`` at all samples and a partial sort; at most 2**21 pre-activations a block are looked at.
    """
    found = {}
    for block in blocks:
        if block.activation.kind != "gelu":
            raise ConfigError(f"{block.name} has the activation {block.activation.kind}; only GELU can be offset.")
        own = density.get(block.name) if isinstance(density, Mapping) else density
        if own is None:
            raise ConfigError(f"There is no density for {block.name}; give one for each block, or a single number.")
        threshold = _quantile(block, samples.get(block.name), density=own)
        z = _pre_activations(block, samples[block.name])
        silent = z <= threshold
        offset = float(block.activation(z)[silent].double().mean()) if bool(silent.any()) else 0.0
        found[block.name] = Activation("offset_gelu", (threshold, offset))
    return found


@torch.no_grad()
def shift_bias_(block: MLPBlock, samples: BlockSamples, *, density: float) -> float:
    """Lower the bias of a ReLU-like block so that a given share of its pre-activations stays positive.

    Unlike a FATReLU the block stays continuous: a rounding error cannot switch a neuron by more than itself.

    Args:
        block: the block, changed in place; its activation is zero up to 0.
        samples: its inputs.
        density: share of the pre-activations that are to be positive, in (0, 1).

    Returns:
        The shift that was subtracted from every bias of the layer that decides.

    Raises:
        ConfigError: the density is not a fraction, the layer has no bias, or the activation is not zero up to 0.
        DataError: there are no samples.

    Cost: ``up`` at the samples and a partial sort; at most 2**21 pre-activations are looked at.
    """
    bias = block.first.bias
    if bias is None or block.activation.zero.left != 0:
        lacks = "has no bias" if bias is None else f"has the activation {block.activation.kind}, not zero up to 0"
        raise ConfigError(f"{block.first.name} {lacks}; install ReLU first, or thresholds where there is no bias.")
    shift = _quantile(block, samples, density=density)
    bias -= shift
    return shift


@torch.no_grad()
def _quantile(block: MLPBlock, samples: BlockSamples | None, *, density: float) -> float:
    """The number above which the given share of a block's pre-activations lies."""
    if not 0 < density < 1:
        raise ConfigError(f"A density is a fraction between 0 and 1, got {density}.")
    if samples is None or not len(samples.inputs):
        raise DataError(f"There are no samples for block {block.name}; take them with block_samples.")
    z = _pre_activations(block, samples)
    return float(z.kthvalue(max(1, round((1 - density) * z.numel()))).values)


def _pre_activations(block: MLPBlock, samples: BlockSamples) -> Tensor:
    """At most 2**21 of them, flat."""
    rows = samples.inputs[:: max(1, -(-len(samples.inputs) * block.d_hidden // 2**21))]
    return block.pre_activation(rows).flatten()


@torch.no_grad()
def refit_down_(
    block: MLPBlock, samples: BlockSamples, *, ridge: float = 1e-3, rows: int = 4096, bits: int | None = None
) -> tuple[float, float]:
    """Replace ``down`` by the ridge regression of the wanted outputs on the hidden activations that the block has now.

    With ``bits`` the weights end on the grid on which quantised execution keeps them, so that ``weights="int8"`` leaves
    them as they are. Neurons are rounded in turn, and what rounding one does to the outputs is made up for by those
    that follow and by the bias.

    Args:
        block: the block, changed in place; only weight and bias of ``down`` move.
        samples: what it should answer to what.
        ridge: penalty on the distance from the present weight, as a share of the mean diagonal of the Gram matrix.
        rows: tokens a product.
        bits: None, or 8 for weights of that many bits with one scale a neuron.

    Returns:
        Squared error over the variance of the outputs, before and after.

    Raises:
        ConfigError: ``ridge`` is not positive, ``bits`` is another number, or ``down`` carries an adapter.

    Cost: ``2 * d_hidden**2`` FLOPs a token and a Cholesky factorisation of that size; with ``bits`` two more, and
    ``d_hidden**2 * d_out`` FLOPs.

    Source: the order of rounding and its compensation are those of Frantar et al., "GPTQ: Accurate Post-Training
        Quantization for Generative Pre-trained Transformers", 2022; that it ends a regression, bias included, is ours.
    """
    if not ridge > 0:
        raise ConfigError(f"A ridge is a number > 0, got {ridge}.")
    if bits not in (None, 8):
        raise ConfigError(f"bits is None or 8, got {bits}.")
    if block.down.adapted:
        raise ConfigError(f"{block.down.name} carries an adapter; merge it into the weight first.")
    weight, bias = block.down.weight, block.down.bias
    n = block.d_hidden
    gram = torch.zeros(n + 1, n + 1, dtype=torch.float64, device=weight.device)
    cross = torch.zeros(n + 1, block.d_out, dtype=torch.float64, device=weight.device)
    before = 0.0
    for x, y in zip(torch.split(samples.inputs, rows), torch.split(samples.outputs, rows), strict=True):
        h = block.hidden(x)
        residual = y - F.linear(h, weight, bias)
        h1 = torch.cat([h, h.new_full((len(h), 1), 0.0 if bias is None else 1.0)], dim=1)
        gram += h1.t() @ h1
        cross += h1.t() @ residual
        before += float(residual.double().square().sum())
    total = float((samples.outputs.double() - samples.outputs.double().mean()).square().sum())
    held = gram + ridge * float(gram.diagonal().mean()) * torch.eye(n + 1).to(gram)
    change = torch.cholesky_solve(cross, torch.linalg.cholesky(held))
    if bits is not None:
        old = torch.cat([weight.t(), weight.new_zeros(1, block.d_out)]).to(change)
        change = _rounded_in_turn(old + change, held, levels=2 ** (bits - 1) - 1) - old
    weight += change[:n].t().to(weight)
    if bias is not None:
        bias += change[n].to(bias)
    # |R - H c|^2 = |R|^2 - 2 <c, H'R> + <c, H'H c>
    after = before - 2 * float((change * cross).sum()) + float((change * (gram @ change)).sum())
    return before / total, after / total


def _rounded_in_turn(rows: Tensor, gram: Tensor, *, levels: int) -> Tensor:
    """All rows but the last on grids of their own, each rounded to the nearest of what is left when its turn comes."""
    rows, together = rows.clone(), 128
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)
    last = len(rows) - 1
    for begin in range(0, last, together):
        end = min(begin + together, last)
        missed = torch.zeros(end - begin, rows.shape[1]).to(rows)
        for row in range(begin, end):
            step = (rows[row].abs().max() / levels).clamp_min(torch.finfo(torch.float32).tiny)
            wanted, rows[row] = rows[row].clone(), (rows[row] / step).round() * step
            missed[row - begin] = (wanted - rows[row]) / upper[row, row]
            rows[row + 1 : end] -= upper[row, row + 1 : end, None] * missed[row - begin]
        rows[end:] -= upper[begin:end, end:].t() @ missed
    return rows
