"""From the original to the sparse model, with a look at every state on the way."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

from lazyneuron.blocks import find_blocks
from lazyneuron.experiments.demo.held_out import HeldOut, Look
from lazyneuron.experiments.demo.settings import Settings
from lazyneuron.experiments.demo.stages import Stages
from lazyneuron.experiments.demo.training import Subject, closed_form, end_to_end, sample_blocks
from lazyneuron.induce import Relufy, Step, sparsify_


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """The sparse model and how it came about.

    Attributes:
        subject: the model.
        looks: the states on the way, the last of which is the model's.
        steps: end-to-end training steps made.
        tokens: real tokens in them.
    """

    subject: Subject
    looks: tuple[Look, ...]
    steps: int
    tokens: int


def train(
    original: Subject,
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
        held_out: what the states are looked at through.
        settings: how much work to do.
        stages: told the progress.
    """
    with stages("sparsify layer by layer"):
        looks, subject = _layer_by_layer(original, ids, held_out=held_out, settings=settings, stages=stages)
    marks = list(settings.checkpoints)
    steps: list[Step] = []

    def on_step(step: Step) -> None:
        steps.append(step)
        if marks and step.progress >= marks[0]:
            del marks[0]
            looks.append(held_out.look(subject, label=f"after {len(steps)} steps"))
        stages.advance(step.progress, f"density {step.density or 0:.3f}, error {step.fidelity:.3f}")

    with stages("distil end to end"):
        end_to_end(subject, original.model, ids, settings=settings, on_step=on_step)
    with stages("measure the sparse model"):
        looks.append(held_out.look(subject, label="distilled", advance=stages.advance))
    return Trained(subject=subject, looks=tuple(looks), steps=len(steps), tokens=sum(step.tokens for step in steps))


def _layer_by_layer(
    original: Subject, ids: Sequence[Sequence[int]], *, held_out: HeldOut, settings: Settings, stages: Stages
) -> tuple[list[Look], Subject]:
    bare = copy.deepcopy(original.model)
    sparsify_(bare, Relufy())
    subject = Subject(model=bare, blocks=find_blocks(bare))
    looks = [held_out.look(subject, label="ReLU, nothing else")]
    samples = sample_blocks(original, ids[: settings.sample_lines])
    densities = (*settings.closed_form_densities, settings.start_density)
    for number, density in enumerate(densities):

        def advance(share: float, number: int = number) -> None:
            stages.advance((number + share) / len(densities))

        subject = closed_form(original.model, samples, density=density, advance=advance)
        state = "refitted" if density is None else f"biases shifted to {density:g}, refitted"
        looks.append(held_out.look(subject, label=state))
    return looks, subject
