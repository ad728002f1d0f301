"""Images: the digits, and CIFAR-10's binary format on small files made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.training.images import cifar10, digits, load_images


def cifar_file(path: Path, labels: list[int]) -> torch.Tensor:
    """A file in the format: one byte label, 3072 bytes of red, green and blue planes."""
    pixels = torch.randint(0, 256, (len(labels), 3072), generator=torch.Generator().manual_seed(len(labels)))
    path.write_bytes(b"".join(bytes([y]) + bytes(row.tolist()) for y, row in zip(labels, pixels, strict=True)))
    return pixels.reshape(-1, 3, 32, 32)


def test_cifar_from_its_binary_files(tmp_path: Path) -> None:
    first = cifar_file(tmp_path / "data_batch_1.bin", [3, 1, 9])
    cifar_file(tmp_path / "data_batch_2.bin", [0, 4])
    test = cifar_file(tmp_path / "test_batch.bin", [7, 7, 2, 5])
    images = cifar10(tmp_path)
    assert images.train_labels.tolist() == [3, 1, 9, 0, 4]
    assert images.test_labels.tolist() == [7, 7, 2, 5]
    assert images.train.shape == (5, 3, 32, 32) and images.test.shape == (4, 3, 32, 32)
    assert float(images.train.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.train.std()) == pytest.approx(1, rel=1e-5)
    # an affine image of the bytes, with the train set's numbers for both
    slope = (
        (images.train[0].flatten() @ (first[0].float() - first[0].float().mean()).flatten())
        / first[0].float().var()
        / 3071
    )
    offset = images.train[0].mean() - slope * first[0].float().mean()
    torch.testing.assert_close(images.test[1], slope * test[1].float() + offset, rtol=1e-3, atol=1e-3)
    assert load_images(tmp_path).name == "CIFAR-10"


def test_the_digits_split_without_overlap() -> None:
    images = digits(seed=1)
    assert len(images.train) + len(images.test) == 1797
    assert set(images.test_labels.tolist()) == set(range(10))
    again, other = digits(seed=1), digits(seed=2)
    assert torch.equal(images.test, again.test) and not torch.equal(images.test, other.test)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no data_batch_1.bin"),
        (b"", "0 bytes"),
        (b"x" * 100, "no multiple of 3073"),
        (b"\xff" * 3073, "label 255"),
    ],
)
def test_what_is_not_cifar(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        cifar10(tmp_path)
