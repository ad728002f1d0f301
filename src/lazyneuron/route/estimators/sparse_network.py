"""A network of which each input uses a few units, with its top layer in closed form."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.errors import ConfigError
from lazyneuron.ops.array import tensor_of
from lazyneuron.route.constructions import lsh_model, random_hash_layer, top_k_layer
from lazyneuron.route.estimators.outputs import FLOATS, BaseEstimator, OutputsMixin, check_is_fitted, validate_data
from lazyneuron.route.layers import DSM
from lazyneuron.route.least_squares import TopStatistics, solve_top
from lazyneuron.route.router import Router

ROUTERS = ("top_k", "random_hash", "hyperplane_lsh")


class SparseNetworkRegressor(OutputsMixin, BaseEstimator):  # type: ignore[misc]
    """``A (mask(x) * relu(B x + c))`` with a frozen random bottom layer, a router, and A by ridge regression.

    Args:
        router: ``"top_k"``, ``"random_hash"`` (the negative control), ``"hyperplane_lsh"`` (a constant a bucket, no
            bottom layer), or a router of standardised inputs.
        width: number of units, t; for ``"hyperplane_lsh"`` rounded down to a power of two for each table.
        active: units that compute for an input, s.
        ridge: penalty on A, per row.
        bottom_bias: deviation of the frozen biases c.
        random_state: seed.

    Attributes:
        model_: the :class:`lazyneuron.route.DSM`, on standardised inputs.

    Source: Baykal et al. (2022), section 5.
    """

    def __init__(
        self,
        *,
        router: str | Router = "top_k",
        width: int = 1024,
        active: int = 128,
        ridge: float = 1e-6,
        bottom_bias: float = 0.5,
        random_state: int = 0,
    ) -> None:
        self.router = router
        self.width = width
        self.active = active
        self.ridge = ridge
        self.bottom_bias = bottom_bias
        self.random_state = random_state

    def _network(self, features: int, outputs: int) -> DSM:
        width, active, seed = self.width, self.active, self.random_state
        if isinstance(self.router, Router):
            router = copy.deepcopy(self.router)
            plain = top_k_layer(features, router.width, active=1, outputs=outputs, seed=seed)
            return DSM(router, plain.top.data, bottom=plain.bottom, bias=self._bias(router.width))
        if self.router == "hyperplane_lsh":
            bits = max(1, (width // active).bit_length() - 1)
            return lsh_model(features, bits=bits, tables=active, outputs=outputs, seed=seed)
        if self.router not in ROUTERS:
            raise ConfigError(f"router is one of {', '.join(ROUTERS)} or a Router, got {self.router!r}.")
        make = top_k_layer if self.router == "top_k" else random_hash_layer
        model = make(features, width, active=active, outputs=outputs, seed=seed)
        bias = self._bias(width)
        model.bias = bias
        if self.router == "top_k":
            model.router.bias = bias
        return model

    def _bias(self, width: int) -> Tensor:
        g = torch.Generator().manual_seed(self.random_state + 1)
        return self.bottom_bias * torch.randn(width, generator=g)

    def _start(self, x: Tensor, y: Tensor) -> None:
        mean, deviation = x.mean(0), x.std(0, unbiased=False)
        self.mean_, self.scale_ = mean, torch.where(deviation <= 1e-12 * x.abs().amax(0), 1.0, deviation)
        self.model_ = self._network(x.shape[1], y.shape[1]).double()

    def _take(self, solved: tuple[Tensor, Tensor]) -> None:
        self.model_.top.data, self.model_.output_bias = solved[0], nn.Parameter(solved[1])
        self.model_.eval()

    def fit(self, X: Any, y: Any) -> SparseNetworkRegressor:
        """Learn from all rows (rows, features) and targets (rows,) or (rows, outputs)."""
        x, target = self._checked(X, y)
        x = x.double()
        self._start(x, target)
        self.__dict__.pop("sums_", None)
        self._take(solve_top(self.model_, (x - self.mean_) / self.scale_, target, ridge=self.ridge))
        return self

    def partial_fit(self, X: Any, y: Any) -> SparseNetworkRegressor:
        """Learn from some more rows; the first ones fix the standardisation. For up to 8192 units."""
        x, target = self._checked(X, y, reset=not hasattr(self, "sums_"))
        x = x.double()
        if not hasattr(self, "sums_"):
            self._start(x, target)
            self.sums_ = TopStatistics(self.model_)
        self.sums_.add((x - self.mean_) / self.scale_, target)
        self._take(self.sums_.solve(ridge=self.ridge))
        return self

    @torch.no_grad()
    def predict(self, X: Any) -> Any:
        """Predicted targets: (rows,) or (rows, outputs)."""
        check_is_fitted(self, "model_")
        x = tensor_of(validate_data(self, X, reset=False, dtype=FLOATS)).double()
        parts = [self.model_((part - self.mean_) / self.scale_) for part in torch.split(x, 8192)]
        return self._shaped(torch.cat(parts))
