"""Routers that score: the units, experts, block positions, gates or points that fit an input best."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import ConfigError
from lazyneuron.route.router import Route, Router, ones_like_route

Metric = Literal["dot", "euclidean"]


class TopK(Router):
    """The ``active`` units with the largest frozen random scores ``B x + c``: "DSM" in the published experiments.

    Args:
        features: length of an input.
        width: number of units.
        active: how many are kept.
        bottom: (width, features) scores' matrix; default standard normal over ``sqrt(features)``.
        bias: (width,) or None for none.
        seed: of the default matrix.
    """

    def __init__(
        self,
        features: int,
        width: int,
        *,
        active: int,
        bottom: Tensor | None = None,
        bias: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(features, width, active)
        g = torch.Generator().manual_seed(seed)
        drawn = torch.randn(width, features, generator=g) / math.sqrt(features) if bottom is None else bottom
        self.register_buffer("bottom", drawn)
        self.register_buffer("bias", torch.zeros(width, dtype=drawn.dtype) if bias is None else bias)
        self.bottom: Tensor
        self.bias: Tensor

    def route(self, x: Tensor) -> Route:
        """The largest scores, largest first."""
        indices = F.linear(x, self.bottom.to(x.dtype), self.bias.to(x.dtype)).topk(self.active, dim=-1).indices
        return Route(indices, ones_like_route(indices, x))


class NearestNeighbours(Router):
    """The ``active`` stored points nearest to the input.

    Args:
        points: (width, features).
        active: how many.
        metric: ``"dot"`` compares inner products (for unit vectors the same as distances, but for rounding),
            ``"euclidean"`` distances, in float64 from the differences, so that points far from 0 and close together
            are told apart.
    """

    def __init__(self, points: Tensor, *, active: int = 1, metric: Metric = "euclidean") -> None:
        check_choice("metric", metric, ("dot", "euclidean"))
        super().__init__(points.shape[1], points.shape[0], active)
        self.metric = metric
        self.register_buffer("points", points)
        self.points: Tensor

    def route(self, x: Tensor) -> Route:
        """The nearest points, nearest first."""
        if self.metric == "dot":
            scores = x @ self.points.t().to(x.dtype)
        else:
            flat, points = x.reshape(-1, self.features).double(), self.points.double()
            # products would cancel: points at 1000 + noise all have one square in float32
            apart = torch.cdist(flat, points, compute_mode="donot_use_mm_for_euclid_dist")
            scores = -apart.reshape(*x.shape[:-1], self.width)
        indices = scores.topk(self.active, dim=-1).indices
        return Route(indices, ones_like_route(indices, x))


class Switch(Router):
    """Learned routing to one of ``experts``, each a run of ``expert_units`` neighbouring units.

    Args:
        features: length of an input.
        experts: L.
        expert_units: units of an expert, s.
        gated: weigh the expert by its softmax probability, which is what trains the routing; otherwise by 1.
        seed: of the routing's weights.

    Attributes:
        balance_loss: of the last input in training mode: ``L sum_e share_e mean_probability_e``, 1 when balanced.

    Source: Fedus, Zoph, Shazeer (2022), equation 4 for the loss; the construction is in Baykal et al. (2022).
    """

    def __init__(
        self, features: int, experts: int, *, expert_units: int = 1, gated: bool = True, seed: int = 0
    ) -> None:
        super().__init__(features, experts * expert_units, expert_units)
        g = torch.Generator().manual_seed(seed)
        self.experts, self.gated = experts, gated
        self.weight = nn.Parameter(torch.randn(experts, features, generator=g) / math.sqrt(features))
        self.balance_loss: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the last loss, whose graph cannot be copied."""
        return {**self.__dict__, "balance_loss": None}

    def route(self, x: Tensor) -> Route:
        """All units of the expert with the largest logit."""
        chances = F.linear(x, self.weight.to(x.dtype)).softmax(-1)
        best, expert = chances.max(-1, keepdim=True)
        if self.training:
            share = F.one_hot(expert.flatten(), self.experts).to(x.dtype).mean(0)
            self.balance_loss = self.experts * (share * chances.reshape(-1, self.experts).mean(0)).sum()
        indices = expert * self.active + torch.arange(self.active, device=x.device)
        return Route(indices, best.expand(indices.shape) if self.gated else ones_like_route(indices, x))


class ScalingBlocks(Router):
    """One position in each of ``blocks`` blocks, by learned scores of low rank.

    Args:
        features: length of an input.
        width: units, a multiple of ``blocks``.
        blocks: number of blocks, s.
        rank: of the scores' matrix; None for full.
        seed: of its weights.

    In training mode the chosen position's weight is ``1 + p - p`` with its probability p in one of the places held
    constant, so that the value is 1 and the scores get a gradient (straight through).

    Source: Jaszczur et al. (2021); the construction is in Baykal et al. (2022).
    """

    def __init__(self, features: int, width: int, *, blocks: int, rank: int | None = None, seed: int = 0) -> None:
        super().__init__(features, width, blocks)
        if width % blocks:
            raise ConfigError(f"The width is a multiple of the blocks, got {width} and {blocks}.")
        g = torch.Generator().manual_seed(seed)
        inner = features if rank is None else rank
        self.reduce = None if rank is None else nn.Parameter(torch.randn(rank, features, generator=g) / features**0.5)
        self.weight = nn.Parameter(torch.randn(width, inner, generator=g) / math.sqrt(inner))

    def route(self, x: Tensor) -> Route:
        """The position with the largest score in each block."""
        h = x if self.reduce is None else F.linear(x, self.reduce.to(x.dtype))
        size = self.width // self.active
        scores = F.linear(h, self.weight.to(x.dtype)).reshape(*x.shape[:-1], self.active, size)
        place = scores.argmax(-1)
        indices = place + torch.arange(self.active, device=x.device) * size
        if not self.training:
            return Route(indices, ones_like_route(indices, x))
        p = scores.softmax(-1).gather(-1, place[..., None])[..., 0]
        return Route(indices, 1 + p - p.detach())


class GlobalGates(Router):
    """A few gates for all units: unit i belongs to gate ``i mod gates``, and the ``open_gates`` best gates are open.

    The gates read what they are given, not the layer's own input: a :class:`SparseStack` hands them the network's
    input, so that all its layers share one routing.

    Args:
        features: length of what the gates read.
        width: units, a multiple of ``gates``.
        gates: number of gates.
        open_gates: how many are open.
        seed: of the gates' directions.
    """

    def __init__(self, features: int, width: int, *, gates: int, open_gates: int = 1, seed: int = 0) -> None:
        if width % gates or not 1 <= open_gates <= gates:
            raise ConfigError(
                f"The width is a multiple of the gates, and at least one and at most all of them are open; got width "
                f"{width}, {gates} gates, {open_gates} open."
            )
        super().__init__(features, width, open_gates * (width // gates))
        g = torch.Generator().manual_seed(seed)
        self.open_gates, self.gates = open_gates, gates
        self.register_buffer("directions", torch.randn(gates, features, generator=g))
        self.directions: Tensor

    def route(self, x: Tensor) -> Route:
        """All units of the open gates."""
        gate = F.linear(x, self.directions.to(x.dtype)).topk(self.open_gates, dim=-1).indices
        indices = (gate[..., None] + torch.arange(0, self.width, self.gates, device=x.device)).flatten(-2)
        return Route(indices, ones_like_route(indices, x))
