"""Numbers that callers give."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from lazyneuron.core.errors import ConfigError
from lazyneuron.core.numbers import real, whole

NO_NUMBER = (None, "3", [1], True, torch.ones(2), 1j)


def test_numbers_become_pythons_own() -> None:
    assert type(whole(np.int8(100), "N")) is int and whole(np.int8(100), "N") ** 9 == 10**18
    assert type(real(np.float32(0.5), "N")) is float and type(real(np.int16(3), "N")) is float
    assert type(real(Fraction(1, 4), "N")) is float and real(np.int8(-128), "N") == -128
    assert whole(10**400, "N") == 10**400
    assert (whole(3, "N", least=3, most=3), real(3, "N", least=3, most=3)) == (3, 3.0)


@pytest.mark.parametrize("value", [*NO_NUMBER, 2.0, float("nan"), float("inf")])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^The count is a whole number, got "):
        whole(value, "The count")


@pytest.mark.parametrize("value", [*NO_NUMBER, float("nan"), float("-inf"), 10**400, Fraction(10**400)])
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^The error is a (finite )?number, got .{1,40}$"):
        real(value, "The error")


def test_numbers_outside_are_refused_in_words() -> None:
    for call, words in (
        (lambda: whole(0, "N", least=1), "N is a whole number of at least 1, got 0."),
        (lambda: whole(10**30, "N", most=9), "N is a whole number of at most 9, got about 2^100."),
        (lambda: whole(7, "N", least=1, most=3), "N is a whole number from 1 to 3, got 7."),
        (lambda: real(0, "N", above=0), "N is a finite number above 0, got 0."),
        (lambda: real(2, "N", above=0, most=1), "N is a finite number above 0 up to 1, got 2."),
        (lambda: real(-1.5, "N", least=0), "N is a finite number of at least 0, got -1.5."),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == words
