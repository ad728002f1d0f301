"""Small images with labels: scikit-learn's digits, or CIFAR-10 from its own binary files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from lazyneuron.core.errors import DataError, ImplUnavailable

_CIFAR_ROW = 1 + 3 * 32 * 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """A train and a test set.

    Attributes:
        name: what it is.
        train, test: (images, channels, side, side), float32 with mean 0 and deviation 1 over the train set.
        train_labels, test_labels: int64 (images,).
        classes: how many labels there are.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int


def digits(*, seed: int = 0) -> Images:
    """scikit-learn's 1797 handwritten digits of 8 x 8 pixels, a fifth of them for testing.

    Raises:
        ImplUnavailable: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImplUnavailable("The digits come with scikit-learn; run pip install scikit-learn.") from error
    raw = load_digits()
    x = torch.tensor(raw.images, dtype=torch.float32)[:, None]
    y = torch.tensor(raw.target, dtype=torch.long)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    cut = len(x) // 5
    return _standardised("scikit-learn digits", x[order[cut:]], y[order[cut:]], x[order[:cut]], y[order[:cut]], 10)


def cifar10(folder: Path) -> Images:
    """CIFAR-10 from the folder of its binary version (``data_batch_1.bin`` to ``5``, ``test_batch.bin``).

    Raises:
        DataError: a file is missing or is not of that format.
    """
    trains = [folder / f"data_batch_{k}.bin" for k in range(1, 6)]
    parts = [_read_cifar(path) for path in trains if path.exists()]
    if not parts:
        raise DataError(f"{folder} has no data_batch_1.bin; pass the folder of CIFAR-10's binary version.")
    x, y = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    return _standardised("CIFAR-10", x, y, *_read_cifar(folder / "test_batch.bin"), 10)


def load_images(folder: Path | None, *, seed: int = 0) -> Images:
    """CIFAR-10 when a folder is given, else the digits."""
    return digits(seed=seed) if folder is None else cifar10(folder)


def _read_cifar(path: Path) -> tuple[Tensor, Tensor]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"Cannot read {path} ({error.strerror}); pass the folder of CIFAR-10's binary version."
        ) from error
    if not raw or len(raw) % _CIFAR_ROW:
        raise DataError(
            f"{path} has {len(raw)} bytes, no multiple of {_CIFAR_ROW}; it is not CIFAR-10's binary version."
        )
    rows = torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(-1, _CIFAR_ROW)
    labels = rows[:, 0].long()
    if int(labels.max()) > 9:
        raise DataError(f"{path} has the label {int(labels.max())}, but there are ten classes; it is not CIFAR-10.")
    return rows[:, 1:].reshape(-1, 3, 32, 32).float(), labels


def _standardised(name: str, x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, classes: int) -> Images:
    mean, spread = x.mean(), x.std()
    return Images(
        name=name,
        train=(x - mean) / spread,
        train_labels=y,
        test=(x_test - mean) / spread,
        test_labels=y_test,
        classes=classes,
    )
