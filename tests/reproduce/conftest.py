"""A task so small that a training takes a second."""

from __future__ import annotations

import dataclasses

import pytest

from lazyneuron.reproduce.images import Images, digits
from lazyneuron.reproduce.vision import VisionSize, VisionTask

SMALL = VisionSize(width=16, layers=2, heads=2, hidden=32, batch=64)


@pytest.fixture
def few() -> Images:
    whole = digits()
    return dataclasses.replace(
        whole,
        train=whole.train[:256],
        train_labels=whole.train_labels[:256],
        test=whole.test[:64],
        test_labels=whole.test_labels[:64],
    )


@pytest.fixture
def small(few: Images) -> VisionTask:
    pytest.importorskip("transformers")
    return VisionTask(few, SMALL)
