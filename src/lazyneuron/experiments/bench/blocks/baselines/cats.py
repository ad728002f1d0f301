"""CATS (Lee et al., COLM 2024), implemented anew: neurons of small activation are left out of the rest."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks import MLPBlock
from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built, Problem, dense_output, size_bytes
from lazyneuron.experiments.bench.blocks.baselines.rows import MOST_GATHERED, SomeNeurons
from lazyneuron.experiments.bench.blocks.baselines.teal import quantile_of_magnitude

KEPT_OF_FIRING = 0.5


def build(problem: Problem) -> Built:
    """Keep the larger half of what fires: at no cut below zero CATS would be exact and no faster than gathering."""
    act = _activation(problem.block, problem.sample)
    firing = float((act != 0).float().mean())
    threshold = quantile_of_magnitude(act, 1 - KEPT_OF_FIRING * firing)
    built = with_threshold(problem.block, threshold)
    return dataclasses.replace(built, note=f"keeps {KEPT_OF_FIRING:g} of what fires")


def with_threshold(block: MLPBlock, threshold: float) -> Built:
    """Neurons whose ``s(gate x)``, or ``s(up x)`` without a gate, is at most this large are left out of the rest."""
    some = SomeNeurons(block)

    def cut(x: Tensor) -> Tensor:
        act = _activation(block, x)
        return torch.where(act.abs() > threshold, act, torch.zeros((), dtype=act.dtype))

    def run(x: Tensor) -> Tensor:
        act = cut(x)
        index = (act != 0).any(0).nonzero()[:, 0]
        if len(x) > 1 and len(index) > MOST_GATHERED * block.d_hidden:
            h = act if block.gate is None else act * F.linear(x, block.up.weight, block.up.bias)
            return dense_output(block, h)
        h = act.index_select(1, index)
        if block.gate is not None:
            bias = None if block.up.bias is None else block.up.bias.index_select(0, index)
            h = h * F.linear(x, block.up.weight.index_select(0, index), bias)
        return some.down(h, index)

    return Built(run=run, added_bytes=size_bytes(some.down_rows), used=lambda x: cut(x) != 0)


def _activation(block: MLPBlock, x: Tensor) -> Tensor:
    return block.activation(F.linear(x, block.first.weight, block.first.bias))


BASELINE = Baseline(name="cats", about="CATS: small activations left out", exact=False, build=build)
