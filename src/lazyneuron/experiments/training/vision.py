"""The vision task: a small pre-norm vision transformer on small images."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.experiments.training.images import Images, load_images
from lazyneuron.experiments.training.task import Batch, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionSize:
    """Size of the transformer and of its batches.

    Attributes:
        width, layers, heads, hidden, patch: of the transformer.
        batch: images in a step.
        noise: deviation of Gaussian noise on training images.
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    hidden: int = 256
    patch: int = 2
    batch: int = 128
    noise: float = 0.0


class VisionTask(Task):
    """Classification of images."""

    def __init__(self, images: Images, size: VisionSize) -> None:
        self.images, self.size = images, size
        self.name = images.name
        self.epoch_steps = math.ceil(len(images.train) / size.batch)

    def new_model(self) -> nn.Module:
        """A vision transformer with ReLU, initialised as in the paper.

        Raises:
            ImplUnavailable: transformers is not installed.
        """
        try:
            from transformers import ViTConfig, ViTForImageClassification
        except ImportError as error:
            raise ImplUnavailable(
                "The vision experiments need transformers; run pip install 'lazyneuron[hf]'."
            ) from error
        config = ViTConfig(  # type: ignore[call-arg]
            image_size=self.images.train.shape[-1],
            num_channels=self.images.train.shape[1],
            patch_size=self.size.patch,
            hidden_size=self.size.width,
            num_hidden_layers=self.size.layers,
            num_attention_heads=self.size.heads,
            intermediate_size=self.size.hidden,
            hidden_act="relu",
            layer_norm_eps=1e-6,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=self.images.classes,
        )
        model: nn.Module = ViTForImageClassification(config)
        _initialise(model)
        return model

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Every image once, in a new order each time, with noise."""
        while True:
            for rows in torch.split(torch.randperm(len(self.images.train), generator=generator), self.size.batch):
                x = self.images.train[rows]
                if self.size.noise:
                    x = x + self.size.noise * torch.randn(x.shape, generator=generator)
                yield {"pixel_values": x, "labels": self.images.train_labels[rows]}

    def losses(self, model: nn.Module, batch: Batch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Of each image."""
        logits, labels = model(pixel_values=batch["pixel_values"]).logits, batch["labels"]
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return loss, logits.detach().argmax(-1) == labels

    @functools.cached_property
    def held_out(self) -> Sequence[Batch]:
        """The test set."""
        return self._split(self.images.test, self.images.test_labels)

    @functools.cached_property
    def probe(self) -> Sequence[Batch]:
        """The first 512 training images."""
        return self._split(self.images.train[:512], self.images.train_labels[:512])

    @staticmethod
    def _split(images: Tensor, labels: Tensor) -> list[dict[str, Any]]:
        pairs = zip(torch.split(images, 256), torch.split(labels, 256), strict=True)
        return [{"pixel_values": x, "labels": y} for x, y in pairs]


def _initialise(model: nn.Module) -> None:
    """Xavier-uniform matrices and biases near 0: at width 64 the config's deviation of 0.02 is far smaller."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=1e-6)


def vision_task(data: Path | None, *, noise: float = 0.0, batch: int = 128, large: bool = False) -> VisionTask:
    """The digits, or CIFAR-10 from its folder with a larger model.

    Args:
        data: CIFAR-10's folder; None takes the digits.
        noise: deviation of Gaussian noise on training images.
        batch: images in a step.
        large: ViT-S/4, 12 layers of width 384, which wants an accelerator.
    """
    images = load_images(data)
    size = VisionSize(noise=noise, batch=batch, patch=2 if images.train.shape[-1] <= 8 else 4)
    if large:
        size = dataclasses.replace(size, width=384, layers=12, heads=6, hidden=1536)
    elif size.patch == 4:
        size = dataclasses.replace(size, width=128, hidden=512)
    return VisionTask(images, size)
