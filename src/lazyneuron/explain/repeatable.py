"""The same random numbers again."""

from __future__ import annotations

import torch
from torch import nn


class Repeatable:
    """Remembers the random states that a model's forward draws from; within ``observing`` they may be set back."""

    def __init__(self, model: nn.Module) -> None:
        self._host = torch.get_rng_state()
        devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
        self._devices = {device: torch.cuda.get_rng_state(device) for device in devices}

    def rewind(self) -> None:
        """Set them back."""
        torch.set_rng_state(self._host)
        for device, state in self._devices.items():
            torch.cuda.set_rng_state(state, device)
