"""The three tasks of the regime: batches follow from the step alone, and no window of text comes twice in an epoch."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.reproduce.peng.regime.text import VOCABULARY, Bytes
from lazyneuron.experiments.training.images import Images
from lazyneuron.experiments.training.language import DecoderTask, LanguageSize, SpanTask
from lazyneuron.experiments.training.task import Batch
from lazyneuron.experiments.training.text import Tokens
from lazyneuron.experiments.training.vision import VisionSize, VisionTask

Begin = Literal["torch", "gpt2", "unit", "tokens"]
_HELD_OUT, _AT_ONCE = 512, 64  # windows that a look measures, and in one batch


def generator_of(seed: int, step: int) -> torch.Generator:
    """A generator that follows from the two."""
    return torch.Generator().manual_seed(1_000_003 * seed + step)


class Windows:
    """Windows of a stream: an epoch cuts it at another place and takes each piece once, in an order of its own.

    Args:
        stream: (bytes,).
        length: of a window.
        batch: windows in a step.

    Raises:
        DataError: the stream is too short for one batch.
    """

    def __init__(self, stream: Tensor, *, length: int, batch: int) -> None:
        self._stream, self._length, self._batch = stream, length, batch
        self.per_epoch = (len(stream) - length) // (length * batch)
        if self.per_epoch < 1:
            raise DataError(f"The text has {len(stream)} bytes, too few for a batch of {batch} x {length}; pass more.")
        self._order = functools.lru_cache(maxsize=1)(self._make_order)

    def at(self, step: int, seed: int) -> Tensor:
        """The windows of a step, counted from 0: int64 (batch, length)."""
        epoch, place = divmod(step, self.per_epoch)
        first, order = self._order(seed, epoch)
        pieces = self._stream[first:][: len(order) * self._length].view(len(order), self._length)
        return pieces[order[place * self._batch : (place + 1) * self._batch]].long()

    def _make_order(self, seed: int, epoch: int) -> tuple[int, Tensor]:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        first = int(torch.randint(self._length, (1,), generator=generator))
        return first, torch.randperm((len(self._stream) - first) // self._length, generator=generator)


class _ByteTask:
    """What decoder and encoder-decoder share."""

    size: LanguageSize
    tokens: Tokens
    _windows_at: Windows
    _batch: Callable[[Tensor, torch.Generator], Batch]

    @functools.cached_property
    def held_out(self) -> Sequence[Batch]:
        """Windows spread evenly over the held-out files."""
        there = len(self.tokens.held_out) // self.size.length
        places = torch.linspace(0, there - 1, min(_HELD_OUT, there)).long()
        rows = self.tokens.held_out[: there * self.size.length].view(there, self.size.length)[places]
        generator = torch.Generator().manual_seed(0)
        return [self._batch(part, generator) for part in torch.split(rows, _AT_ONCE)]

    def batch_at(self, step: int, seed: int) -> Batch:
        """The training batch of a step, counted from 0."""
        return self._batch(self._windows_at.at(step, seed), generator_of(seed, step))


class ByteDecoder(_ByteTask, DecoderTask):
    """The next byte.

    Args:
        text: the bytes.
        size: of model and batches.
        begin: the first weights: ``"gpt2"`` with deviation 0.02 everywhere and the embedding as the head's matrix;
            ``"torch"`` the same, but linear layers as torch makes them; ``"unit"`` these, embeddings of deviation 1 and
            a head of its own; ``"tokens"`` as ``"unit"``, but positions of deviation 0.02. What becomes of the modules'
            cut with each stands in docs/regime.md.
    """

    def __init__(self, text: Bytes, size: LanguageSize, *, begin: Begin = "torch") -> None:
        super().__init__(_tokens(text), size)
        self.begin, self.tied = begin, begin in ("torch", "gpt2")
        self._windows_at = Windows(text.train, length=size.length, batch=size.batch)

    def new_model(self) -> nn.Module:
        """A pre-norm decoder with ReLU and learned positions."""
        model = super().new_model()
        for name, module in model.named_modules() if self.begin != "gpt2" else ():
            if not self.tied and isinstance(module, nn.Linear | nn.Embedding):
                if self.begin == "unit" or not name.endswith("wpe"):
                    module.reset_parameters()
            elif type(module).__name__ == "Conv1D":  # a linear layer with its matrix transposed
                reach = len(module.get_parameter("weight")) ** -0.5
                for parameter in module.parameters():
                    nn.init.uniform_(parameter, -reach, reach)
        return model

    def _batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        return {"input_ids": rows.long()}


class ByteSpans(_ByteTask, SpanTask):
    """Missing spans of bytes."""

    def __init__(self, text: Bytes, size: LanguageSize) -> None:
        super().__init__(_tokens(text), size)
        self._windows_at = Windows(text.train, length=size.length, batch=size.batch)

    def _batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        return super()._batch(rows.long(), generator)


def _tokens(text: Bytes) -> Tokens:
    return Tokens(name="Python sources, as bytes", train=text.train, held_out=text.held_out, vocabulary=VOCABULARY)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How an image is changed each time that it comes; each is drawn evenly from minus to plus.

    Attributes:
        turn: radians.
        stretch: logarithm of the scale.
        shear: of x with y.
        shift: in halves of the canvas.
        noise: deviation of Gaussian noise on every pixel.
        erased: largest share of each side that a rectangle of mean grey covers.
    """

    turn: float = 0.4
    stretch: float = 0.25
    shear: float = 0.3
    shift: float = 0.3
    noise: float = 0.5
    erased: float = 0.5


class EndlessDigits(VisionTask):
    """Digits on a larger canvas, turned, stretched, sheared, shifted, erased in part and noisy anew each time.

    Held out are other digits, moved likewise once, without noise and with nothing erased.

    Args:
        images: values from 0 to 16, as scikit-learn's digits before they are standardised.
        size: of the transformer.
        canvas: pixels of a side.
        augmentation: how strongly images are changed.
        begin: with ``"tokens"``, first weights of the stem as torchvision's, from which patches of deviation 1 become
            tokens of deviation 1; else transformers' of deviation 0.02.
    """

    def __init__(
        self,
        images: Images,
        size: VisionSize,
        *,
        canvas: int = 16,
        augmentation: Augmentation | None = None,
        begin: Begin = "torch",
    ) -> None:
        self.begin = begin
        self.augmentation, self._small, self._canvas = augmentation or Augmentation(), images, canvas
        self._quiet = dataclasses.replace(self.augmentation, noise=0.0, erased=0.0)
        background = torch.stack([images.train.min(), images.train.max()])
        self._low, self._span = float(background[0]), float(background[1] - background[0])
        moved = self._moved(images.test, generator_of(0, 0), self._quiet)
        canvas_like = dataclasses.replace(images, train=moved[:1], train_labels=images.test_labels[:1], test=moved)
        super().__init__(canvas_like, size)
        self.name = "scikit-learn digits, moved and disturbed anew each time"
        self.epoch_steps = math.ceil(len(images.train) / size.batch)

    def new_model(self) -> nn.Module:
        """A vision transformer with ReLU."""
        model = super().new_model()
        for module in model.modules() if self.begin == "tokens" else ():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        return model

    def batch_at(self, step: int, seed: int) -> Batch:
        """The training batch of a step, counted from 0."""
        generator = generator_of(seed, step)
        rows = torch.randint(len(self._small.train), (self.size.batch,), generator=generator)
        x = self._moved(self._small.train[rows], generator, self.augmentation)
        return {"pixel_values": x, "labels": self._small.train_labels[rows]}

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Those of the generator's seed."""
        step, seed = 0, generator.initial_seed()
        while True:
            yield self.batch_at(step, seed)
            step += 1

    def _moved(self, images: Tensor, generator: torch.Generator, how: Augmentation) -> Tensor:
        """(images, 1, canvas, canvas), with mean and deviation near 0 and 1."""
        count = len(images)

        def drawn(reach: float) -> Tensor:
            return reach * (2 * torch.rand(count, generator=generator) - 1)

        turn, scale, shear = drawn(how.turn), drawn(how.stretch).exp(), drawn(how.shear)
        cos, sin = scale * turn.cos(), scale * turn.sin()
        rows = torch.stack(
            [torch.stack([cos, shear - sin, drawn(how.shift)], 1), torch.stack([sin, cos, drawn(how.shift)], 1)], 1
        )
        ink = (images - self._low) / self._span  # the background is 0, as beyond the border
        side = self._canvas
        grid = F.affine_grid(1.3 * rows, [count, 1, side, side], align_corners=False)
        x = (F.grid_sample(ink, grid, align_corners=False) - 0.2) / 0.33
        if how.erased:
            x = torch.where(self._covered(count, how.erased, generator), 0.0, x)
        return x + how.noise * torch.randn(x.shape, generator=generator) if how.noise else x

    def _covered(self, count: int, share: float, generator: torch.Generator) -> Tensor:
        place = torch.arange(self._canvas)[None]
        sides = []
        for _ in range(2):
            length = (share * self._canvas * torch.rand(count, 1, generator=generator)).long()
            first = ((self._canvas - length) * torch.rand(count, 1, generator=generator)).long()
            sides.append((place >= first) & (place < first + length))
        return (sides[0][:, :, None] & sides[1][:, None, :])[:, None]


Endless = ByteDecoder | ByteSpans | EndlessDigits


def model_of(task: Endless, seed: int) -> nn.Module:
    """A new model with the weights of a seed."""
    torch.manual_seed(seed)
    return task.new_model().to(task.device)
