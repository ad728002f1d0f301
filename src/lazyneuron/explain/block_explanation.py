"""What is reported of one block."""

from __future__ import annotations

import dataclasses

from lazyneuron.explain.diagonality import Diagonality
from lazyneuron.explain.gradient_histogram import GradientHistogram


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockExplanation:
    """Why one block is as sparse as it is.

    Attributes:
        name, activation, gated, neurons: the block.
        samples, tokens: what it was looked at with; tokens are real ones.
        density: share of hidden activations that are not zero.
        derivative_density: share of (token, neuron) pairs with ``s'(p) != 0``.
        derivative_square: mean of ``s'(p)^2``.
        effective_small: share of effective gradients of at most 1 % of their root mean square.
        effective_l1, effective_l2: mean over tokens of ``sum_j |eta_j|`` and of ``sum_j eta_j^2``.
        effective_below: ``(threshold, share of |eta| below it)`` for each absolute threshold that was asked for.
        beneficial, detrimental: shares of pairs with ``eta < 0`` (raising the pre-activation lowers the loss), ``> 0``.
        beneficial_mean, detrimental_mean: mean of these entries of eta; NaN when there is none.
        hidden_gradient_square: mean over tokens of ``|g|^2``, with ``g`` the gradient with respect to what the
            activation function returns.
        active_gradient_ratio: ``E[g^2 | eta != 0] / E[g^2]``; below 1, the neurons that still learn carry smaller
            gradients than the silent ones.
        input_square: ``E |x|^2``, the mean squared length of what the deciding layer receives.
        weight_square: ``|K|_F^2``, the trace of ``K K^T``, which training tends to increase.
        output_gradient: mean over tokens of ``|gV|``, the gradient with respect to the block's output.
        output_gradient_square: mean over tokens of ``|gV|^2``: the coefficient c_L2 of the identity for ``E |a|^2``.
        as_up, as_down: augmented flatness AS_K and AS_V.
        identity_density, identity_residual: the density that the identity predicts from ``as_up``, and its relative
            difference from ``derivative_density``; NaN when nothing fires.
        degenerate: nothing fires, or no gradient arrives.
        hidden_square: ``E |a|^2``.
        hidden_square_times_gradient: ``E [|a|^2 |gV|^2]``, which is ``AS_V / T``.
        hidden_square_predicted: ``AS_V / (T c_L2)``, which is ``E |a|^2`` where ``|a|^2`` and ``|gV|^2`` are
            uncorrelated.
        gated_flatness, gated_density, gated_identity_density, gated_identity_residual: of a gated block's ``up``, whose
            effective gradient is ``s(p) g``: its augmented flatness, the share of pairs with ``s(p) != 0``, what the
            second identity predicts for that, and the relative difference; NaN without a gate.
        gradient_participation: how many directions share the outputs' gradients, ``(tr)^2 / |.|_F^2`` of their Gram
            matrix.
        gram_residual: largest relative difference of ``|K^T eta|^2`` and ``eta^T K K^T eta`` over two tokens.
        diagonality: diagonals against the rest, if it was asked for.
        histogram: the magnitudes of the gradients, if it was asked for.
    """

    name: str
    activation: str
    gated: bool
    neurons: int
    samples: int
    tokens: int
    density: float
    derivative_density: float
    derivative_square: float
    effective_small: float
    effective_l1: float
    effective_l2: float
    effective_below: tuple[tuple[float, float], ...]
    beneficial: float
    detrimental: float
    beneficial_mean: float
    detrimental_mean: float
    hidden_gradient_square: float
    active_gradient_ratio: float
    input_square: float
    weight_square: float
    output_gradient: float
    output_gradient_square: float
    as_up: float
    as_down: float
    identity_density: float
    identity_residual: float
    degenerate: bool
    hidden_square: float
    hidden_square_times_gradient: float
    hidden_square_predicted: float
    gated_flatness: float
    gated_density: float
    gated_identity_density: float
    gated_identity_residual: float
    gradient_participation: float
    gram_residual: float
    diagonality: Diagonality | None = None
    histogram: GradientHistogram | None = None
