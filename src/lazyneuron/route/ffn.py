"""A transformer's MLP block as several experts of its own size, of which the router gives each token one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice import splice_
from lazyneuron.core.arguments import check_choice, check_patterns
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.recipe import Recipe, register_recipe
from lazyneuron.route.hash_routers import HyperplaneLSH, RandomHash
from lazyneuron.route.router import Router
from lazyneuron.route.score_routers import Switch

ROUTERS = ("lsh", "switch", "random")
CHILD = "lazyneuron_routed"


class RoutedFFN(nn.Module):
    """Experts ``down_e(s(up_e x))`` of which each token uses one, chosen by a router.

    Args:
        router: of width ``experts``, one active.
        block: its weights start every expert, so that the output is at first the block's own (times the
            router's weight).
        jitter: deviation of noise on the copies, relative to the weights' own, so that experts can part.
        seed: of the noise.

    Cost: FLOPs of the block itself and of the router; memory of ``experts`` blocks.
    """

    def __init__(self, router: Router, block: MLPBlock, *, jitter: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.router, self._activation = router, block.activation
        g = torch.Generator().manual_seed(seed)

        def copies(source: Tensor | None) -> nn.Parameter | None:
            if source is None:
                return None
            copied = source.detach().expand(router.width, *source.shape).clone()
            noise = torch.randn(copied.shape, generator=g).to(copied) * (jitter * float(source.detach().float().std()))
            return nn.Parameter(copied + noise if jitter and source.ndim == 2 else copied)

        self.up, self.up_bias = copies(block.up.weight), copies(block.up.bias)
        self.down, self.down_bias = copies(block.down.weight), copies(block.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        assert self.down is not None
        rows = x.reshape(-1, x.shape[-1])
        indices, weights = self.router(rows)
        expert = indices[:, 0]
        if len(rows) == 1:
            y = self._expert(int(expert), rows)
        else:
            order = expert.argsort(stable=True)
            counts = torch.bincount(expert, minlength=self.router.width).tolist()
            shares = torch.split(rows[order], counts)
            parts = [self._expert(e, part) for e, part in enumerate(shares) if len(part)]
            y = torch.cat(parts)[order.argsort()] if parts else rows.new_zeros(0, self.down.shape[1])
        out: Tensor = (y * weights).reshape(*x.shape[:-1], self.down.shape[1])
        return out

    def _expert(self, e: int, rows: Tensor) -> Tensor:
        """One expert's output for its rows (rows, d_in)."""
        assert self.up is not None and self.down is not None
        h = nn.functional.linear(rows, self.up[e], None if self.up_bias is None else self.up_bias[e])
        bias = None if self.down_bias is None else self.down_bias[e]
        return nn.functional.linear(self._activation(h), self.down[e], bias)


@register_recipe
@dataclasses.dataclass(frozen=True, kw_only=True)
class RouteFFN(Recipe):
    """Recipe for :func:`lazyneuron.sparsify_`: turn MLP blocks into routed experts with the active FLOPs of the block.

    Every expert starts as a copy of the block, so that with a router of weight 1 (``"lsh"``, ``"random"``) the model's
    output is unchanged until training tells the experts apart. Gated blocks are skipped. The block's own weights stay
    in the model, unused, until the change is restored.

    Attributes:
        router: ``"lsh"`` (frozen hyperplanes: near tokens share an expert), ``"switch"`` (learned, weighed by its
            probability) or ``"random"`` (the control).
        experts: how many; a power of two for ``"lsh"``.
        jitter: relative noise on the copies.
        offset: ``"lsh"``: largest distance, in deviations of a normal direction, of a hyperplane from the origin; 0
            suits normed inputs, more those whose place counts as much as their direction.
        blocks: glob patterns of block names.
        seed: of routers and noise.

    Source: Baykal et al. (2022) ask for LSH layers in transformers; starting experts from a dense block is known as
    upcycling (Komatsuzaki et al., 2022).
    """

    router: str = "lsh"
    experts: int = 8
    jitter: float = 0.0
    offset: float = 0.0
    blocks: tuple[str, ...] = ("*",)
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("router", self.router, ROUTERS)
        if self.experts < 2 or (self.router == "lsh" and self.experts & (self.experts - 1)):
            raise ConfigError(f"There are at least two experts, a power of two for 'lsh'; got {self.experts}.")
        check_patterns(self.blocks)
        if not (self.jitter >= 0 and math.isfinite(self.jitter)):
            raise ConfigError(f"jitter is not negative, got {self.jitter}.")
        if not (self.offset >= 0 and math.isfinite(self.offset)):
            raise ConfigError(f"offset is not negative, got {self.offset}.")

    def refuses(self, model: nn.Module, block: MLPBlock, *, blocks: Sequence[MLPBlock]) -> str | None:
        """Why this block cannot be replaced, or None."""
        if block.gate is not None:
            return "It is gated; routed experts are plain blocks."
        parts = block.up.name.split(".")
        homes = (model.get_submodule(".".join(parts[:k])) for k in range(len(parts) + 1))
        taken = any(CHILD in home._modules for home in homes)
        return block.refusal or ("Another module computes it already; restore that change first." if taken else None)

    def describes(self, model: nn.Module, block: MLPBlock) -> str:
        """What becomes of a block."""
        return f"It is to be computed by {self.experts} experts of its size, one for each token."

    def install_(self, change: Transaction, block: MLPBlock, *, fitted: Any) -> None:
        """Let experts compute a block; they become a child of the block's container, or else of ``up``."""
        home = block.up.module if block.container is None else change.model.get_submodule(block.container)
        module = self.module_for(block).train(home.training)
        splice_(change, block, module)
        change.set(home, CHILD, module)

    def module_for(self, block: MLPBlock) -> nn.Module:
        """The module that computes this block from now on."""
        features, weight = block.up.weight.shape[1], block.up.weight
        router: Router
        if self.router == "lsh":
            router = HyperplaneLSH(features, self.experts.bit_length() - 1, offset=self.offset, seed=self.seed)
        elif self.router == "switch":
            router = Switch(features, self.experts, seed=self.seed)
        else:
            router = RandomHash(features, self.experts, seed=self.seed)
        return RoutedFFN(router, block, jitter=self.jitter, seed=self.seed).to(weight.device)
