"""Tiny models are fastest on one thread."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """One thread of torch for a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
