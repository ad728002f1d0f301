"""Silencing and refitting blocks in closed form: a quantile for the threshold, a ridge regression for ``down``.

No gradient is taken, and the cost is that of a few forwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce.samples import BlockSamples, hidden


def thresholds_for(
    blocks: Sequence[MLPBlock], samples: Mapping[str, BlockSamples], *, density: float
) -> dict[str, Activation]:
    """For each block the FATReLU that would leave it with a given density.

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
    if not 0 < density < 1:
        raise ConfigError(f"A density is a fraction between 0 and 1, got {density}.")
    found: dict[str, Activation] = {}
    for block in blocks:
        if block.name not in samples:
            raise DataError(f"There are no samples for block {block.name}; take them with block_samples.")
        rows = samples[block.name].inputs
        rows = rows[:: max(1, -(-len(rows) * block.d_hidden // 2**21))]
        with torch.no_grad():
            z = F.linear(rows, block.switch.weight, block.switch.bias).flatten()
        above = max(1, round(density * z.numel()))
        found[block.name] = Activation("fatrelu", (float(z.topk(above + 1).values[-1]),))
    return found


@torch.no_grad()
def refit_down_(
    block: MLPBlock, samples: BlockSamples, *, ridge: float = 1e-3, rows: int = 4096
) -> tuple[float, float]:
    """Replace ``down`` by the ridge regression of the wanted outputs on the hidden activations that the block has now.

    Args:
        block: the block, changed in place; only weight and bias of ``down`` move.
        samples: what it should answer to what.
        ridge: penalty on the distance from the present weight, as a share of the mean diagonal of the Gram matrix.
        rows: tokens a product.

    Returns:
        Squared error over the variance of the outputs, before and after.

    Raises:
        ConfigError: ``ridge`` is not positive.

    Cost: ``2 * d_hidden**2`` FLOPs a token and a Cholesky factorisation of that size.
    """
    if not ridge > 0:
        raise ConfigError(f"A ridge is a number > 0, got {ridge}.")
    weight, bias = block.down.weight, block.down.bias
    n = block.d_hidden
    gram = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    cross = torch.zeros(n + 1, block.d_out, dtype=torch.float64)
    before = total = 0.0
    pieces = list(zip(torch.split(samples.inputs, rows), torch.split(samples.outputs, rows), strict=True))
    for x, y in pieces:
        h = hidden(block, x)[1]
        residual = y - F.linear(h, weight, bias)
        h1 = torch.cat([h, h.new_full((len(h), 1), 0.0 if bias is None else 1.0)], dim=1)
        gram += h1.t() @ h1
        cross += h1.t() @ residual
        before += float(residual.double().square().sum())
    total = float((samples.outputs.double() - samples.outputs.double().mean()).square().sum())
    scale = ridge * float(gram.diagonal().mean())
    change = torch.cholesky_solve(cross, torch.linalg.cholesky(gram + scale * torch.eye(n + 1, dtype=torch.float64)))
    weight += change[:n].t().to(weight)
    if bias is not None:
        bias += change[n].to(bias)
    after = sum(float((y - F.linear(hidden(block, x)[1], weight, bias)).double().square().sum()) for x, y in pieces)
    return before / total, after / total
