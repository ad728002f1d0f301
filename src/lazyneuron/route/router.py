"""The one interface of all routers: which of t units answer for an input, and with what weight."""

from __future__ import annotations

import abc
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lazyneuron.core.arguments import check_tensor
from lazyneuron.core.errors import ConfigError, ShapeError


class Route(NamedTuple):
    """Where inputs go.

    Attributes:
        indices: (..., active) int64: the units.
        weights: (..., active): what each unit's value is multiplied by; 0 where a place is not taken.
    """

    indices: Tensor
    weights: Tensor


class Router(nn.Module, abc.ABC):
    """Maps an input to at most ``active`` of ``width`` units.

    Args:
        features: length of an input.
        width: number of units, t.
        active: most units that answer for one input, s.

    Raises:
        ConfigError: numbers that make no sense together.
    """

    def __init__(self, features: int, width: int, active: int) -> None:
        super().__init__()
        if features < 1 or width < 1 or not 1 <= active <= width:
            raise ConfigError(
                f"A router has at least one feature and 1 <= active <= width, got {features} features, "
                f"{active} active of {width}."
            )
        self.features, self.width, self.active = features, width, active

    @abc.abstractmethod
    def route(self, x: Tensor) -> Route:
        """The units for each input.

        Args:
            x: (..., features).
        """

    def forward(self, x: Tensor) -> Route:
        """The same as :meth:`route`, after a check of the input's shape.

        Raises:
            DataError: inputs that are no tensor.
            ShapeError: inputs of another length.
        """
        self.check_inputs(x)
        return self.route(x)

    def check_inputs(self, x: Tensor) -> None:
        """Refuse what no route is for.

        Raises:
            DataError: inputs that are no tensor.
            ShapeError: inputs of another length.
        """
        check_tensor("An input", x)
        if x.shape[-1:] != (self.features,):
            raise ShapeError(f"The router takes inputs of length {self.features}, got shape {tuple(x.shape)}.")

    def mask(self, x: Tensor) -> Tensor:
        """(..., width): the weights at their units, 0 elsewhere; costs as much as a dense layer."""
        indices, weights = self(x)
        empty = torch.zeros(*x.shape[:-1], self.width, dtype=weights.dtype, device=x.device)
        return empty.scatter_add(-1, indices, weights)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"features={self.features}, width={self.width}, active={self.active}"


def ones_like_route(indices: Tensor, x: Tensor) -> Tensor:
    """Weight 1 for every unit, in the input's dtype."""
    return torch.ones(indices.shape, dtype=x.dtype, device=x.device)
