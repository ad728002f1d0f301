"""Images in a folder for each class, as ImageNet is unpacked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import ConfigError, DataError, ImplUnavailable

IMAGE_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm"}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, on the scale of [0, 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Image files with labels; a file is decoded when it is asked for.

    Attributes:
        folder: where.
        classes: names of the sub-folders, sorted; a label is a place in it.
        files: file and label of each image.
        size: side of the square that an image becomes: the shorter side is scaled to it, then the middle is cut out.
        mean, deviation: of the channels, taken off and divided out.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[tuple[Path, int], ...]
    size: int
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        """An image as float32 (3, size, size), and its label.

        Raises:
            DataError: the file is damaged or no image.
            ImplUnavailable: Pillow is not installed.
        """
        file, label = self.files[place]
        pixels = torch.tensor(_pixels(file, self.size), dtype=torch.float32).permute(2, 0, 1) / 255
        mean, deviation = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.deviation))
        return (pixels - mean) / deviation, label

    def batches(self, batch_size: int, *, generator: torch.Generator | None = None) -> Iterator[dict[str, Tensor]]:
        """Every image once, as ``pixel_values`` and ``labels``.

        Args:
            batch_size: images a batch, at least 1; the last one may be smaller.
            generator: of the order; None takes class after class.

        Raises:
            ConfigError: the batch size is below 1.
            DataError: a file is damaged.
        """
        if batch_size < 1:
            raise ConfigError(f"A batch has at least one image, got {batch_size}.")
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for places in torch.split(order, batch_size):
            images, labels = zip(*(self[place] for place in places.tolist()), strict=True)
            yield {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def image_folder(
    folder: str | Path,
    *,
    size: int = 224,
    mean: tuple[float, ...] = MEAN,
    deviation: tuple[float, ...] = DEVIATION,
) -> ImageFolder:
    """Find the images of a folder that has one sub-folder for each class, such as ImageNet's ``train`` or ``val``.

    Args:
        folder: the folder; what lies deeper in a class's folder counts too.
        size: side of the square that images become.
        mean: of each channel, on the scale of [0, 1].
        deviation: of each channel.

    Returns:
        The images, in the order of class and file name; none is opened yet.

    Raises:
        ConfigError: a number is out of range.
        DataError: the folder is missing, has no sub-folder, or a class has no image.
    """
    if size < 1 or len(mean) != 3 or len(deviation) != 3 or min(deviation) <= 0:
        raise ConfigError(
            f"A size is >= 1, with three means and three deviations > 0, got {size}, {mean} and {deviation}."
        )
    folder = Path(folder)
    try:
        homes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"Cannot read the folder {folder} ({error.strerror}); pass one with a folder a class."
        ) from error
    if not homes:
        raise DataError(f"{folder} has no sub-folder; images lie in one folder for each class, as in ImageNet's train.")
    files: list[tuple[Path, int]] = []
    for label, home in enumerate(homes):
        found = sorted(p for p in home.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not found:
            raise DataError(f"The class {home.name!r} in {folder} has no image; remove the folder, or fill it.")
        files += [(file, label) for file in found]
    names = tuple(home.name for home in homes)
    return ImageFolder(folder=folder, classes=names, files=tuple(files), size=size, mean=mean, deviation=deviation)


def _pixels(file: Path, size: int) -> Any:
    try:
        import numpy as np
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImplUnavailable("Image files are read by Pillow; run pip install 'lazyneuron[images]'.") from error
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise DataError(f"{file} is no whole image ({error}); remove it or fetch it again.") from error
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.array(image.crop((left, top, left + size, top + size)))
