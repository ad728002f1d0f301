"""Folders as ImageNet is unpacked, with images of known pixels."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lazyneuron.core.errors import ConfigError, DataError, ImplUnavailable
from lazyneuron.data import image_folder
from lazyneuron.data.image_folder import DEVIATION, MEAN


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8), mode).save(path)


@pytest.fixture
def folder(tmp_path):
    dice = np.random.default_rng(0)
    save(tmp_path / "n02" / "b.png", dice.integers(0, 256, (8, 8, 3)))
    save(tmp_path / "n01" / "deep" / "a.png", dice.integers(0, 256, (8, 8, 3)))
    save(tmp_path / "n01" / "z.JPEG", np.full((20, 30, 3), 200))
    (tmp_path / "n01" / "notes.txt").write_text("no image")
    (tmp_path / "README").write_text("no class")
    return tmp_path


def test_labels_are_sorted_folders(folder):
    images = image_folder(folder, size=8)
    assert images.classes == ("n01", "n02") and len(images) == 3
    assert [(file.name, label) for file, label in images.files] == [("a.png", 0), ("z.JPEG", 0), ("b.png", 1)]


def test_pixels_are_normalised(folder):
    raw = np.asarray(Image.open(folder / "n02" / "b.png"), dtype=np.float64) / 255
    image, label = image_folder(folder, size=8)[2]
    wanted = ((raw - np.array(MEAN)) / np.array(DEVIATION)).transpose(2, 0, 1)
    assert label == 1 and image.dtype == torch.float32
    assert np.allclose(image.numpy(), wanted, atol=1e-6)
    plain = image_folder(folder, size=8, mean=(0, 0, 0), deviation=(1, 1, 1))[1][0]
    assert plain.shape == (3, 8, 8) and float((plain - 200 / 255).abs().max()) < 0.01  # a JPEG of one colour


def test_the_middle_is_cut_out(tmp_path):
    stripes = np.zeros((4, 12, 3))
    stripes[:, 4:8] = 255  # the middle third
    save(tmp_path / "c" / "a.png", stripes)
    image = image_folder(tmp_path, size=4, mean=(0, 0, 0), deviation=(1, 1, 1))[0][0]
    assert torch.equal(image, torch.ones(3, 4, 4))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_colour_modes_become_three_channels(tmp_path, mode):
    (tmp_path / "c").mkdir()
    grey = Image.new("RGB", (5, 5), (10, 10, 10))
    (grey.quantize(2) if mode == "P" else grey.convert(mode)).save(tmp_path / "c" / "a.png")
    image = image_folder(tmp_path, size=5, mean=(0, 0, 0), deviation=(1, 1, 1))[0][0]
    assert image.shape == (3, 5, 5) and float((image * 255 - 10).abs().max()) < 1e-4


def test_batches_hold_every_image_once(folder):
    images = image_folder(folder, size=8)
    whole = list(images.batches(2))
    assert [b["labels"].tolist() for b in whole] == [[0, 0], [1]]
    assert whole[0]["pixel_values"].shape == (2, 3, 8, 8)
    mixed = torch.cat([b["pixel_values"] for b in images.batches(2, generator=torch.Generator().manual_seed(1))])
    plain = torch.cat([b["pixel_values"] for b in whole])
    assert not torch.equal(mixed, plain) and torch.allclose(mixed.sum(0), plain.sum(0), atol=1e-5)
    with pytest.raises(ConfigError, match="at least one image"):
        next(images.batches(0))


def test_what_is_missing_is_named(folder, monkeypatch):
    with pytest.raises(DataError, match="Cannot read the folder"):
        image_folder(folder / "none")
    with pytest.raises(DataError, match="has no sub-folder"):
        image_folder(folder / "n02")
    (folder / "n03").mkdir()
    with pytest.raises(DataError, match=r"The class 'n03' in .* has no image"):
        image_folder(folder)
    (folder / "n03" / "x.png").write_bytes((folder / "n02" / "b.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"x.png is no whole image"):
        image_folder(folder)[3]
    with pytest.raises(ConfigError, match="size is >= 1"):
        image_folder(folder, size=0)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImplUnavailable, match=r"lazyneuron\[images\]"):
        image_folder(folder)[0]
