"""What every activation module with a fixed function has in common: it says what it computes."""

from __future__ import annotations

from torch import nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.interval import ZeroInterval


class SpecifiedActivation(nn.Module):
    """An activation whose intervals follow from what it says that it computes."""

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        raise NotImplementedError

    @property
    def zero_interval(self) -> ZeroInterval:
        """Where the value is exactly 0."""
        return self.activation_spec().zero

    @property
    def flat_interval(self) -> ZeroInterval:
        """Where the slope is exactly 0, straight-through gradients aside."""
        return self.activation_spec().flat
