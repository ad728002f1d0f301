"""The three kinds of batch reach the model as they should."""

import pytest
import torch
from torch import nn

from lazyneuron.core.batch import call_model, padding_mask
from lazyneuron.core.errors import DataError


class Difference(nn.Module):
    """Not symmetric, so that swapped arguments show."""

    def forward(self, a, b=None, attention_mask=None):
        return a - (0 if b is None else b)


A, B = torch.tensor([5.0]), torch.tensor([2.0])


@pytest.mark.parametrize(("batch", "expected"), [(A, 5.0), ((A, B), 3.0), ({"b": A, "a": B}, -3.0), ((A,), 5.0)])
def test_each_kind_of_batch(batch, expected):
    assert call_model(Difference(), batch).item() == expected


@pytest.mark.parametrize("batch", [[A, B], 3, None, "text"])
def test_anything_else_is_refused(batch):
    with pytest.raises(DataError, match=f"got {type(batch).__name__}"):
        call_model(Difference(), batch)


def test_only_a_mapping_has_a_padding_mask():
    mask = torch.tensor([[1, 0]])
    assert padding_mask({"a": A, "attention_mask": mask}) is mask
    assert padding_mask({"a": A}) is None
    assert padding_mask({"a": A, "attention_mask": None}) is None
    assert padding_mask((A, mask)) is None
    assert padding_mask(A) is None
