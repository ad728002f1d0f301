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


def test_what_the_model_cannot_take_is_said_in_one_sentence():
    with pytest.raises(
        DataError, match=r"cannot run on this batch \(RuntimeError: mat1 and mat2 .*\); pass inputs"
    ) as info:
        call_model(nn.Linear(3, 2), torch.zeros(1, 4))
    assert isinstance(info.value.__cause__, RuntimeError)
    with pytest.raises(DataError, match=r"TypeError: .*unexpected keyword argument 'c'"):
        call_model(Difference(), {"c": A})


def test_errors_of_our_own_and_interruptions_pass_unchanged():
    class Raising(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, x):
            raise self.error

    for error in (DataError("own"), KeyboardInterrupt(), AssertionError("theirs")):
        with pytest.raises(type(error)) as info:
            call_model(Raising(error), A)
        assert info.value is error


def test_only_a_mapping_has_a_padding_mask():
    mask = torch.tensor([[1, 0]])
    assert padding_mask({"a": A, "attention_mask": mask}) is mask
    assert padding_mask({"a": A}) is None
    assert padding_mask({"a": A, "attention_mask": None}) is None
    assert padding_mask((A, mask)) is None
    assert padding_mask(A) is None
