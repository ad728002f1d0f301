"""The calibrated mode: slack as large as the data need, instead of as large as the worst case."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.ops.sparse_mlp.packed import PackedBlock

QUANTILE = 0.9999  # share of (token, neuron) pairs whose sketch error the calibrated slack covers


@torch.no_grad()
def calibrated_slack(packed: PackedBlock, inputs: Tensor) -> tuple[float, dict[str, float]]:
    """The factor on every slack that covers 99.99 % of the sketch errors on half of the inputs.

    Args:
        packed: the block, with the exact slack.
        inputs: (tokens, d_in) real inputs; the other half measures what goes wrong.

    Returns:
        The factor in (0, 1], and the measured facts: ``slack_factor``, and ``wrongly_skipped``, the share of firing
        pairs of the second half that would be skipped.
    """
    fit, check = inputs[::2].double(), inputs[1::2].double()
    if len(check) == 0:
        check = fit
    ratio = _error(packed, fit) / _reach(packed, fit)
    factor = float(torch.quantile(_thinned(ratio), QUANTILE).clamp(1e-3, 1.0))
    z = check @ packed.first_rows.double().T + packed.sketch.certificate[1, : packed.d_hidden].double()
    sketch_z = _sketch(packed, check)
    reach = _reach(packed, check) * factor
    fires = ~packed.zero.contains(z)
    skipped = packed.zero.holds(sketch_z - reach, sketch_z + reach)
    wrong = float((fires & skipped).sum()) / max(int(fires.sum()), 1)
    return factor, {"slack_factor": factor, "wrongly_skipped": wrong}


def _sketch(packed: PackedBlock, x: Tensor) -> Tensor:
    numbers = packed.sketch.certificate[:, : packed.d_hidden].double()
    return x @ (numbers[0][:, None] * packed.sketch.quantised_rows().double()).T + numbers[1]


def _error(packed: PackedBlock, x: Tensor) -> Tensor:
    bias = packed.sketch.certificate[1, : packed.d_hidden].double()
    return (x @ packed.first_rows.double().T + bias - _sketch(packed, x)).abs()


def _reach(packed: PackedBlock, x: Tensor) -> Tensor:
    numbers = packed.sketch.certificate[:, : packed.d_hidden].double()
    norms: Tensor = x.norm(dim=1, keepdim=True)
    return norms * numbers[2] + numbers[4]


def _thinned(values: Tensor, most: int = 4_000_000) -> Tensor:
    flat = values.flatten()
    return flat[:: max(1, -(-flat.numel() // most))]
