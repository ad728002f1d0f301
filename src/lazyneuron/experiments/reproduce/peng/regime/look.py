"""What is measured of a model on its way: density and quality, and the factors of the density identity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.experiments.reproduce.peng.regime.tasks import Endless
from lazyneuron.experiments.training.task import Batch
from lazyneuron.explain import BlockExplanation, explain
from lazyneuron.measure import measure

_EXPLAINED = 2  # batches of the held-out ones
KEPT = (
    "density",
    "derivative_density",
    "as_up",
    "as_down",
    "identity_residual",
    "input_square",
    "derivative_square",
    "hidden_gradient_square",
    "active_gradient_ratio",
    "effective_small",
    "effective_l1",
    "effective_l2",
    "hidden_square",
    "output_gradient_square",
    "hidden_square_times_gradient",
    "weight_square",
)


def look_at(model: nn.Module, task: Endless, *, step: int, blocks: Sequence[MLPBlock]) -> dict[str, Any]:
    """Measure a model that is in evaluation mode.

    Returns:
        ``step``, ``density``, ``accuracy``, ``loss`` and ``densities`` of the blocks on held-out data; ``factors``: for
        each block what :func:`factors` gives.
    """
    held_out = [task.here(batch) for batch in task.held_out]
    found = measure(model, held_out, blocks=blocks)
    with torch.no_grad():
        losses, right = zip(*(task.losses(model, batch) for batch in held_out), strict=True)
    report = explain(model, held_out[:_EXPLAINED], _sample_losses(task), spectra=False, blocks=blocks)
    return {
        "step": step,
        "density": found.density,
        "accuracy": float(torch.cat(right).double().mean()),
        "loss": float(torch.cat(losses).double().mean()),
        "densities": [block.density for block in found.blocks],
        "factors": [factors(block) for block in report.blocks],
    }


def factors(block: BlockExplanation) -> dict[str, float]:
    """A block's statistics, and the identity's parts.

    Returns:
        What :data:`KEPT` names, and ``tokens`` a sample; ``slope``, the mean square of s' where it is not 0;
        ``gradient``, that of g where eta is not 0; ``coefficient`` ``E[|x|^2 g^2 s'^2 | s' != 0]``; and ``together``,
        what the coefficient is of the product of the mean of ``|x|^2`` with those two.
    """
    kept = {name: getattr(block, name) for name in KEPT}
    tokens = block.tokens / block.samples
    slope = block.derivative_square / block.derivative_density if block.derivative_density else math.nan
    gradient = block.active_gradient_ratio * block.hidden_gradient_square / block.neurons
    pairs = tokens * block.neurons * block.derivative_density
    coefficient = block.as_up / pairs if pairs else math.nan
    product = block.input_square * slope * gradient
    return {
        **kept,
        "tokens": tokens,
        "slope": slope,
        "gradient": gradient,
        "coefficient": coefficient,
        "together": coefficient / product if product else math.nan,
    }


def _sample_losses(task: Endless) -> Any:
    """The mean loss of each sample, from an output that was made already."""

    def losses(output: Any, batch: Batch) -> Tensor:
        def made(**_: Any) -> Any:
            return output

        each = task.losses(made, batch)[0]  # type: ignore[arg-type]
        samples = len(next(iter(batch.values())))
        return each.reshape(samples, -1).mean(1)

    return losses
