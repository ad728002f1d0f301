"""One base for all errors, and each also the built-in error that a caller would expect."""

import pytest

from lazyneuron.core import errors

BUILT_IN = {
    "ConfigError": ValueError,
    "DivergedError": ArithmeticError,
    "ShapeError": ValueError,
    "DataError": ValueError,
    "NoBlocksError": ValueError,
    "ImplUnavailable": RuntimeError,
    "CheckpointError": RuntimeError,
    "AssumptionError": ValueError,
}


def test_the_list_is_complete():
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == {*BUILT_IN, "LazyNeuronError", "TimingWarning"}
    assert issubclass(errors.TimingWarning, UserWarning)


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_is_ours_and_a_built_in(name):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.LazyNeuronError) and issubclass(kind, BUILT_IN[name])
    assert kind.__doc__
