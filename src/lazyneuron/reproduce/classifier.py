"""Training a small vision transformer, vanilla or with a recipe, and watching how densely it fires."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.errors import DataError, ImplUnavailable
from lazyneuron.induce import DoublyBiased, parameter_groups, project_, sparsify_
from lazyneuron.measure import measure
from lazyneuron.reproduce.images import Images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regime:
    """How to train; sparsity depends on it, so every figure names its own.

    Attributes:
        width, layers, heads, hidden, patch: of the transformer.
        epochs, batch, learning_rate, weight_decay: AdamW with a cosine to 0 and no warm-up.
        smoothing: of the labels.
        noise: deviation of Gaussian noise on training images.
        clip: largest norm of the gradient.
        looks: how often the test set is looked at on the way.
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    hidden: int = 256
    patch: int = 2
    epochs: int = 150
    batch: int = 128
    learning_rate: float = 5e-3
    weight_decay: float = 0.0
    smoothing: float = 0.0
    noise: float = 0.0
    clip: float = 1.0
    looks: int = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """The state after some epochs, on the test set unless it says otherwise.

    Attributes:
        epoch: epochs done.
        density: mean over blocks of the share of nonzero hidden activations.
        train_density: the same on training images in training mode's inputs, over the epochs since the last point.
        accuracy, loss: cross-entropy without smoothing.
        blocks: density of each block.
    """

    epoch: int
    density: float
    train_density: float
    accuracy: float
    loss: float
    blocks: tuple[float, ...]


def vision_transformer(images: Images, regime: Regime) -> nn.Module:
    """A pre-norm vision transformer with ReLU, random weights from torch's random state.

    Raises:
        ImplUnavailable: transformers is not installed.
    """
    try:
        from transformers import ViTConfig, ViTForImageClassification
    except ImportError as error:
        raise ImplUnavailable("The vision experiments need transformers; run pip install 'lazyneuron[hf]'.") from error
    config = ViTConfig(  # type: ignore[call-arg]
        image_size=images.train.shape[-1],
        num_channels=images.train.shape[1],
        patch_size=regime.patch,
        hidden_size=regime.width,
        num_hidden_layers=regime.layers,
        num_attention_heads=regime.heads,
        intermediate_size=regime.hidden,
        hidden_act="relu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=images.classes,
    )
    model: nn.Module = ViTForImageClassification(config)
    return model


def train_classifier(
    images: Images,
    regime: Regime,
    *,
    recipe: DoublyBiased | None,
    seed: int,
    start: nn.Module | None = None,
    advance: Callable[[float], None] = lambda share: None,
    on_look: Callable[[nn.Module, int], None] = lambda model, epoch: None,
) -> tuple[nn.Module, tuple[Point, ...]]:
    """Train one model.

    Args:
        images: the data.
        regime: how.
        recipe: what to change first; None trains the vanilla ReLU model.
        seed: of weights, order and noise.
        start: a trained model to go on from, instead of a new one.
        advance: told the share of the training done.
        on_look: called with the model in evaluation mode and the epochs done, at every look at the test set.

    Returns:
        The model in evaluation mode, and what was seen on the way; the last point is the result.

    Raises:
        DataError: the loss is not finite; the sentence names the first block whose activations are not.

    Cost: a forward and a backward of every training image for each epoch.
    """
    torch.manual_seed(seed)
    model = vision_transformer(images, regime) if start is None else start
    if recipe is not None:
        sparsify_(model, recipe)
    optimizer = torch.optim.AdamW(parameter_groups(model, regime.weight_decay), lr=regime.learning_rate)
    dice = torch.Generator().manual_seed(seed)
    steps = math.ceil(len(images.train) / regime.batch)
    total, step = regime.epochs * steps, 0
    looks = sorted({max(1, round(regime.epochs * k / regime.looks)) for k in range(1, regime.looks + 1)})
    points: list[Point] = []
    for epoch in range(1, regime.epochs + 1):
        model.train()
        order = torch.randperm(len(images.train), generator=dice)
        for rows in torch.split(order, regime.batch):
            for group in optimizer.param_groups:
                group["lr"] = regime.learning_rate * 0.5 * (1 + math.cos(math.pi * step / total))
            x = images.train[rows]
            if regime.noise:
                x = x + regime.noise * torch.randn(x.shape, generator=dice)
            loss = F.cross_entropy(
                model(pixel_values=x).logits, images.train_labels[rows], label_smoothing=regime.smoothing
            )
            if not bool(loss.isfinite()):
                raise DataError(f"The loss is {loss.item()} after {step} steps; lower the learning rate or cap JSReLU.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), regime.clip)
            optimizer.step()
            step += 1
            if recipe is not None:
                project_(model, step=step)
        advance(epoch / regime.epochs)
        if epoch in looks:
            points.append(_look(model, images, epoch, order))
            on_look(model, epoch)
    return model.eval(), tuple(points)


@torch.no_grad()
def _look(model: nn.Module, images: Images, epoch: int, order: Tensor) -> Point:
    model.eval()
    batches = [{"pixel_values": x} for x in torch.split(images.test, 256)]
    report = measure(model, batches)
    some = images.train[order[:512]]
    training = measure(model, [{"pixel_values": some}])
    logits = torch.cat([model(**b).logits for b in batches])
    return Point(
        epoch=epoch,
        density=report.density,
        train_density=training.density,
        accuracy=float((logits.argmax(-1) == images.test_labels).float().mean()),
        loss=float(F.cross_entropy(logits, images.test_labels)),
        blocks=tuple(b.density or 0.0 for b in report.blocks),
    )


def as_data(points: tuple[Point, ...]) -> list[dict[str, Any]]:
    """JSON-able."""
    return [dataclasses.asdict(p) for p in points]
