"""Torch's dynamic quantisation to int8: weights once, activations at every call."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lazyneuron.blocks import LinearSite, MLPBlock
from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built, Problem, size_bytes


class _Block(nn.Module):
    def __init__(self, block: MLPBlock) -> None:
        super().__init__()
        self.activation = block.activation
        self.up, self.down = _float_linear(block.up), _float_linear(block.down)
        self.gate = None if block.gate is None else _float_linear(block.gate)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        up = self.up(wide)
        y: Tensor = self.down(self.activation(up) if self.gate is None else self.activation(self.gate(wide)) * up)
        return y.to(x.dtype)


def build(problem: Problem) -> Built:
    """Quantise a copy of the block."""
    block = problem.block
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces a successor that is another package
        quantise: Callable[..., nn.Module] = torch.ao.quantization.quantize_dynamic
        quantised = quantise(_Block(block), {nn.Linear}, dtype=torch.qint8, inplace=True)
    weights = [site.weight for site in block.linears]
    int8_bytes = sum(w.numel() for w in weights)
    return Built(run=quantised, added_bytes=int8_bytes - size_bytes(*weights), note="in place of the weights")


def _float_linear(site: LinearSite) -> nn.Linear:
    out, n_in = site.weight.shape
    layer = nn.Linear(n_in, out, device="meta")
    layer.weight = nn.Parameter(site.weight.detach().float(), requires_grad=False)
    bias = torch.zeros(out) if site.bias is None else site.bias.detach().float()
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


BASELINE = Baseline(name="int8", about="torch dynamic int8", exact=False, build=build)
