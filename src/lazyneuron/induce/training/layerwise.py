"""Training each block alone to give what the original block gave on the original's own inputs.

It is cheap: there is no attention and no backward through the rest of the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import check_blocks
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce.training.controller import DensityController
from lazyneuron.induce.training.loop import Distillation, Step, add_penalty, train_steps
from lazyneuron.induce.training.pressure import density_of
from lazyneuron.induce.training.samples import BlockSamples


def distill_layerwise(
    student: nn.Module,
    blocks: Sequence[MLPBlock],
    *,
    samples: Mapping[str, BlockSamples],
    config: Distillation,
    generator: torch.Generator,
    rows: int = 512,
    on_step: Callable[[MLPBlock, Step], None] | None = None,
) -> dict[str, tuple[Step, ...]]:
    """Train the linear layers of each block alone on what the original block did.

    Args:
        student: the model that the blocks belong to, changed in place.
        blocks: its blocks.
        samples: what :func:`block_samples` returned for the original, by the same names.
        config: steps and rates for each block; ``seconds``, if set, is for all blocks together.
        generator: draws the rows of each step.
        rows: tokens a step.
        on_step: called after each step.

    Returns:
        The steps of each block.

    Raises:
        DataError: a block has no samples.
        ConfigError: there are no blocks, or they are not the student's or outdated.

    An exception, Ctrl-C included, leaves the student with the weights it came with.

    Cost: forward and backward of one block for ``rows`` tokens, ``steps`` times for each block.
    """
    missing = [block.name for block in blocks if block.name not in samples]
    if missing or not blocks:
        kind = DataError if missing else ConfigError
        raise kind(f"There are no {'samples for ' + str(missing) if missing else 'blocks'} to train on; pass both.")
    check_blocks(student, blocks)
    seconds = None if config.seconds is None else config.seconds / len(blocks)
    own = dataclasses.replace(config, seconds=seconds)
    history: dict[str, tuple[Step, ...]] = {}
    with borrowed(student, weights=True):
        for block in blocks:
            steps: list[Step] = []
            for step in _train_block(block, samples[block.name], config=own, generator=generator, rows=rows):
                steps.append(step)
                if on_step is not None:
                    on_step(block, step)
            history[block.name] = tuple(steps)
    return history


def _train_block(
    block: MLPBlock, samples: BlockSamples, *, config: Distillation, generator: torch.Generator, rows: int
) -> Iterator[Step]:
    sites = [site for site in (block.gate, block.up, block.down) if site is not None]
    trained = [p for site in sites for p in site.module.parameters() if p.requires_grad]
    controller = DensityController(config.pressure.target) if config.pressure else None
    device = samples.inputs.device
    variance = samples.outputs.float().var().clamp_min(torch.finfo(torch.float32).tiny)

    def losses(_: None, number: int, progress: float) -> tuple[Tensor, Step]:
        pick = torch.randint(len(samples.inputs), (rows,), generator=generator).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.bf16):
            z = block.pre_activation(samples.inputs[pick])
            answer = block.output(block.hidden(samples.inputs[pick], z))
        fidelity = (answer.float() - samples.outputs[pick].float()).square().mean() / variance
        step = Step(number=number, progress=progress, fidelity=float(fidelity.detach()))
        if controller is None or config.pressure is None:
            return fidelity, step
        penalty, density = config.pressure.of(block, z), density_of(block, z)
        return add_penalty(fidelity, step, controller=controller, penalty=penalty, density=density)

    return train_steps(trained, config=config, batches=[None], losses=losses)
