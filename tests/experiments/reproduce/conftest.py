"""A task so small that a training takes a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from lazyneuron.experiments.training.images import Images, digits
from lazyneuron.experiments.training.vision import VisionSize, VisionTask

SMALL = VisionSize(width=16, layers=2, heads=2, hidden=32, batch=64)


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """As the experiments train: at this size a second thread only costs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
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
