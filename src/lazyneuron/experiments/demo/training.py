"""From the original to the sparse model, with an evaluation of every state on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lazyneuron.experiments.demo.distillation import Network, closed_form, end_to_end, relu_copy, sample_blocks, spread
from lazyneuron.experiments.demo.held_out import Evaluation, HeldOut
from lazyneuron.experiments.demo.settings import Settings
from lazyneuron.experiments.demo.stages import Stages
from lazyneuron.induce import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """The sparse model and how it came about.

    Attributes:
        network: the model.
        evaluations: the states on the way, the last of which is the model's.
        steps: end-to-end training steps made.
        tokens: real tokens in them.
    """

    network: Network
    evaluations: tuple[Evaluation, ...]
    steps: int
    tokens: int


def train(
    original: Network,
    ids: Sequence[Sequence[int]],
    *,
    held_out: HeldOut,
    settings: Settings,
    stages: Stages,
) -> Trained:
    """Make the sparse model.

    Args:
        original: the original.
        ids: token ids of the training lines.
        held_out: what the states are evaluated on.
        settings: how much work to do.
        stages: told the progress.
    """
    with stages("sparsify layer by layer"):
        evaluations, network = _layer_by_layer(original, ids, held_out=held_out, settings=settings, stages=stages)
    checkpoints = list(settings.checkpoints)
    steps: list[Step] = []

    def on_step(step: Step) -> None:
        steps.append(step)
        if checkpoints and step.progress >= checkpoints[0]:
            del checkpoints[0]
            evaluations.append(held_out.evaluate(network, label=f"after {len(steps)} steps"))
        stages.advance(step.progress, f"density {step.density or 0:.3f}, error {step.fidelity:.3f}")

    with stages("distil end to end"):
        end_to_end(network, original.model, ids, settings=settings, on_step=on_step)
    with stages("measure the sparse model"):
        evaluations.append(held_out.evaluate(network, label="distilled", advance=stages.advance))
    return Trained(
        network=network, evaluations=tuple(evaluations), steps=len(steps), tokens=sum(step.tokens for step in steps)
    )


def _layer_by_layer(
    original: Network, ids: Sequence[Sequence[int]], *, held_out: HeldOut, settings: Settings, stages: Stages
) -> tuple[list[Evaluation], Network]:
    network = relu_copy(original)
    evaluations = [held_out.evaluate(network, label="ReLU, nothing else")]
    samples = sample_blocks(original, ids[: settings.sample_lines])
    densities = (*settings.closed_form_densities, settings.start_density)
    for number, density in enumerate(densities):

        def advance(share: float, number: int = number) -> None:
            stages.advance((number + share) / len(densities))

        network = closed_form(
            original,
            samples,
            density=spread(original.blocks, density),
            activation=settings.activation,
            advance=advance,
        )
        evaluations.append(held_out.evaluate(network, label=f"{settings.activation} at {density:g}, refitted"))
    return evaluations, network
