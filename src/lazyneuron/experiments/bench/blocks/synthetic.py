"""Blocks with Gaussian weights whose bias makes a wanted share of neurons fire on Gaussian inputs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.machine.benchmark import firing_bias
from lazyneuron.blocks import Activation, LinearSite, MLPBlock
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.experiments.bench.blocks.case import DTYPES, Case, Shape

SEED = 0
INPUTS = 16  # in turn, so that rows are not simply found in the cache
CALIBRATION_TOKENS = 8192


def make_block(shape: Shape, dtype: str, density: float, *, seed: int = SEED) -> MLPBlock:
    """A block with ReLU; the same seed gives the same weights for every density.

    Raises:
        ImplUnavailable: the memory of this machine does not hold it.
    """
    _check_memory(shape, dtype)
    generator = torch.Generator().manual_seed(seed)
    kind = DTYPES[dtype]

    def site(name: str, n_in: int, n_out: int) -> LinearSite:
        layer = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
        weight = torch.empty(n_out, n_in, dtype=kind)
        for start in range(0, n_out, 1024):  # never a second copy of a large matrix
            rows = weight[start : start + 1024]
            rows.copy_(torch.randn(rows.shape, generator=generator) / n_in**0.5)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = nn.Parameter(torch.zeros(n_out, dtype=kind), requires_grad=False)
        return LinearSite(name=name, module=layer)

    block = MLPBlock(
        name="block",
        gate=site("gate", shape.d, shape.hidden) if shape.gated else None,
        up=site("up", shape.d, shape.hidden),
        down=site("down", shape.hidden, shape.d),
        activation=Activation("relu"),
    )
    set_density_(block, density)
    for linear in block.linears:
        linear.module.eval()
    return block


def set_density_(block: MLPBlock, density: float) -> None:
    """Set the bias of the layer that decides, in place."""
    bias = block.first.bias
    assert bias is not None
    bias.detach().fill_(firing_bias(density))


def make_inputs(case: Case) -> list[Tensor]:
    """Gaussian inputs of a case, independent of the weights."""
    generator = torch.Generator().manual_seed(SEED + 1)
    size = (case.tokens, case.shape.d)
    return [torch.randn(size, generator=generator).to(DTYPES[case.dtype]) for _ in range(INPUTS)]


def make_calibration(shape: Shape, dtype: str) -> Tensor:
    """Gaussian tokens that no case is measured on; what a method fits or sets a threshold with."""
    generator = torch.Generator().manual_seed(SEED + 2)
    return torch.randn(CALIBRATION_TOKENS, shape.d, generator=generator).to(DTYPES[dtype])


def _check_memory(shape: Shape, dtype: str) -> None:
    # weights, two copies by neuron, two sketches, their levels, int8 copies and what making these takes
    needed = shape.weights * (DTYPES[dtype].itemsize * 3 + 7)
    free = _available_bytes()
    if free is not None and needed > free:
        raise ImplUnavailable(
            f"Out of memory: about {needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB available."
        )


def _available_bytes() -> int | None:
    """Memory that the system can still give, caches counted as free; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
