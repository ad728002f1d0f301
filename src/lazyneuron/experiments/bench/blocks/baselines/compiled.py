"""The block through ``torch.compile``; compiled once for a shape, before anything is timed."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks import Activation
from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built, Problem


def build(problem: Problem) -> Built:
    """Compile by running once; a machine without a C++ compiler raises here."""
    block = problem.block
    sites = [(s.weight, s.bias) for s in (block.up, block.down, *([] if block.gate is None else [block.gate]))]
    x = problem.inputs[0]
    shape = (len(x), x.dtype, torch.get_num_threads(), *(tuple(weight.shape) for weight, _ in sites))
    call = _compiled(block.activation, shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compilers warn about their own parts
        call(x, sites)
    return Built(run=lambda x: call(x, sites))


@functools.lru_cache(maxsize=1)
def _compiled(activation: Activation, shape: tuple[object, ...]) -> Callable[..., Tensor]:
    """Code for one shape; what was compiled for the last one is dropped, so that no limit on recompiling is met."""

    def forward(x: Tensor, sites: list[Any]) -> Tensor:
        (up, up_bias), (down, down_bias), *gate = sites
        z = F.linear(x, up, up_bias)
        h = activation(F.linear(x, *gate[0])) * z if gate else activation(z)
        return F.linear(h, down, down_bias)

    torch.compiler.reset()
    return torch.compile(forward, dynamic=False, fullgraph=True)


BASELINE = Baseline(name="compiled", about="torch.compile", exact=True, build=build)
