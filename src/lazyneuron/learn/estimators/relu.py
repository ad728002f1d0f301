"""A one-hidden-layer ReLU network trained by gradients, with pressure towards few active neurons: the baseline."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.learn.sparsity import SparsityReport, verify_sparsity
from lazyneuron.ops.array import Array

_PRESSURES = ("none", "l1", "topk", "shift")


class SparseReluRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Adam on the squared loss of ``sum_j u_j max(<w_j, x> - b_j, 0) + c``.

    Often better than low-degree regression on small instances; nothing is guaranteed.

    Args:
        width: neurons.
        pressure: ``"none"``; ``"l1"`` adds ``strength`` times ``E sum_j hidden_j`` to the loss;
            ``"topk"`` keeps the ``k`` largest activations of a row; ``"shift"`` raises thresholds by ``strength``.
        strength: of the pressure.
        k: for top-k.
        epochs: passes over the rows.
        batch_size: rows of a step.
        learning_rate: of Adam, with a cosine decay.
        random_state: seed.

    Attributes:
        net_: the trained :class:`SparseActivationNet` (with top-k the network before the selection).
        intercept_: c.
        activity_: :class:`SparsityReport` on the training rows, after top-k if there is one.
    """

    def __init__(
        self,
        width: int = 256,
        *,
        pressure: str = "none",
        strength: float = 1e-3,
        k: int | None = None,
        epochs: int = 60,
        batch_size: int = 128,
        learning_rate: float = 3e-3,
        random_state: Any = None,
    ) -> None:
        self.width = width
        self.pressure = pressure
        self.strength = strength
        self.k = k
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> SparseReluRegressor:
        """Train; torch's global random state is left alone.

        Raises:
            ConfigError: an option has no meaning.
            DataError: the loss is not finite, or labels are missing or not numbers.
        """
        self._check_options()
        x, target = validate_data(self, X, y, dtype=np.float32, y_numeric=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        labels = np.asarray(target, np.float64)
        self._center, self._scale = float(labels.mean()), float(labels.std()) or 1.0
        rows = torch.from_numpy(np.array(x))
        wanted = torch.from_numpy(((labels - self._center) / self._scale).astype(np.float32))
        weights = self._start(x.shape[1], generator)
        self._descend(weights, rows, wanted, generator)
        up, bias, down, constant = (w.detach().double().numpy() for w in weights)
        self.net_ = SparseActivationNet(up, -bias, down * self._scale)
        self.intercept_ = self._center + self._scale * float(constant[0])
        self.activity_ = self._activity(np.asarray(x, np.float64))
        return self

    def predict(self, X: Any) -> Array:
        """Values, shape (m,)."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=np.float32).astype(np.float64)
        if self.pressure != "topk":
            return np.asarray(self.net_(x) + self.intercept_)
        hidden = np.maximum(x @ self.net_.weight.T - self.net_.threshold, 0)
        return np.asarray(_keep_largest(hidden, self._k()) @ self.net_.outer + self.intercept_)

    def _start(self, n: int, generator: torch.Generator) -> list[Tensor]:
        up = torch.randn(self.width, n, generator=generator) * math.sqrt(2 / n)
        shift = self.strength if self.pressure == "shift" else 0.0
        down = torch.randn(self.width, generator=generator) / math.sqrt(self.width)
        parts = [up, torch.full((self.width,), -shift), down, torch.zeros(1)]
        return [nn.Parameter(part) for part in parts]

    def _descend(self, weights: list[Tensor], x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        up, bias, down, constant = weights
        steps = self.epochs * math.ceil(len(x) / self.batch_size)
        optimiser = torch.optim.Adam(weights, lr=self.learning_rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
        for _ in range(self.epochs):
            for batch in torch.split(torch.randperm(len(x), generator=generator), self.batch_size):
                hidden = torch.relu(x[batch] @ up.t() + bias)
                if self.pressure == "topk":
                    hidden = torch.where(hidden >= hidden.topk(self._k(), dim=1).values[:, -1:], hidden, 0.0)
                loss = (hidden @ down + constant - y[batch]).square().mean()
                if self.pressure == "l1":
                    loss = loss + self.strength * hidden.sum(1).mean()
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                decay.step()
            if not bool(torch.isfinite(loss)):
                raise DataError(f"The loss is {float(loss)}; lower learning_rate ({self.learning_rate}).")

    def _activity(self, x: Array) -> SparsityReport:
        report = verify_sparsity(self.net_, x)
        if self.pressure != "topk":
            return report
        hidden = np.maximum(x @ self.net_.weight.T - self.net_.threshold, 0)
        fires = _keep_largest(hidden, self._k()) > 0
        count = fires.sum(axis=1)
        return SparsityReport(
            max_active=int(count.max()),
            exact=False,
            domain="rows",
            points=len(x),
            mean_active=float(count.mean()),
            mean_square_active=float((count**2.0).mean()),
            active_share=fires.mean(axis=0),
            tolerance=report.tolerance,
            counts=np.bincount(count),
        )

    def _k(self) -> int:
        return min(self.k or 8, self.width)

    def _check_options(self) -> None:
        check_choice("A pressure", self.pressure, _PRESSURES)
        if self.k is not None and (self.pressure != "topk" or self.k < 1):
            raise ConfigError(f"k goes with pressure='topk' and is at least 1, got {self.k} with {self.pressure!r}.")
        if min(self.width, self.epochs, self.batch_size) < 1 or not self.learning_rate > 0 or self.strength < 0:
            raise ConfigError(
                "width, epochs, batch_size are at least 1, learning_rate is above 0, strength at least 0."
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        return tags


def _keep_largest(hidden: Array, k: int) -> Array:
    """Zero all but the k largest of each row (more where they tie)."""
    cut = np.partition(hidden, -k, axis=1)[:, -k]
    return np.where(hidden >= cut[:, None], hidden, 0.0)
