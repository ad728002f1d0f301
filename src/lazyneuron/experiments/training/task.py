"""What a training experiment learns: a model to begin with, batches, a loss, and held-out data to judge by."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]


class Task(abc.ABC):
    """One learning problem with a model family of one size.

    Attributes:
        name: what the data are.
        epoch_steps: steps after which every training example was seen once.
        size: of models and batches, a dataclass.
        device: where models are trained and evaluated; batches are made on the CPU.
    """

    name: str
    epoch_steps: int
    size: Any
    device: torch.device = torch.device("cpu")

    def here(self, batch: Batch) -> Batch:
        """The batch on the task's device."""
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    @abc.abstractmethod
    def new_model(self) -> nn.Module:
        """A model with ReLU blocks and random weights from torch's random state."""

    @abc.abstractmethod
    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Training batches without end."""

    @abc.abstractmethod
    def losses(self, model: nn.Module, batch: Batch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each example or token (n,), and whether its most likely class is right (n,)."""

    @property
    @abc.abstractmethod
    def held_out(self) -> Sequence[Batch]:
        """What quality and density are measured on; never trained on."""

    @property
    @abc.abstractmethod
    def probe(self) -> Sequence[Batch]:
        """Some of the training data, without augmentation."""
