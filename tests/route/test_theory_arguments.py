"""Every function of the theory with every argument replaced: a number, or one sentence; never an error of Python's."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lazyneuron import route
from lazyneuron.core.errors import AssumptionError, ConfigError, DataError, ShapeError

SIZES = {"lipschitz": 2.0, "features": 9, "dimension": 3, "error": 0.5, "constant": 1.0}
CALLS: dict[Callable[..., Any], dict[str, Any]] = {
    route.lsh_table_size: SIZES,
    route.lsh_samples: SIZES,
    route.lsh_forward_flops: SIZES,
    route.dense_width: SIZES,
    route.dense_samples: SIZES,
    route.dense_forward_flops: SIZES,
    route.nonempty_buckets: {"features": 9, "dimension": 3, "width": 0.5, "constant": 1.0},
    route.lsh_hyperplanes: {"dimension": 3, "constant": 2.0},
    route.bucket_diameter: {"width": 0.5, "constant": 2.0},
    route.gaussian_bucket_diameter: {"width": 0.5, "dimension": 3, "hyperplanes": 50, "failure_probability": 0.1},
    route.gaussian_hyperplanes: {"dimension": 3, "ratio": 2.0, "failure_probability": 0.1},
    route.hyperplane_cells: {"hyperplanes": 9, "dimension": 3},
    route.predicted_slope: {"dimension": 3, "degree": 1},
    route.fit_exponent: {"buckets": [10.0, 100.0], "errors": [1.0, 0.1], "predicted": -1.0},
    route.polynomial_terms: {"features": 9, "degree": 2},
    route.lsh_model_flops: {"features": 9, "tables": 3, "hyperplanes": 10, "degree": 2, "outputs": 4},
}
WHOLE = ("features", "dimension", "hyperplanes", "degree", "tables", "outputs")
HUGE, SMALL = 10**400, 5e-324
VALUES = (None, "3", True, math.nan, math.inf, -math.inf, -1, 0, 2.5, HUGE, -HUGE, np.int8(100), [], b"3")
EXTREMES = (SMALL, 1e-300, 1e300, 1.7e308, 2**53, 10**15, np.float32(0.25), np.float64(1e-9))


def cases() -> list[Any]:
    def said(value: Any) -> str:
        huge = isinstance(value, int) and abs(value) >= HUGE
        return f"{type(value).__name__} {'huge' if huge else value}"

    return [
        pytest.param(call, name, value, id=f"{call.__name__}-{name}-{said(value)}")
        for call, good in CALLS.items()
        for name in good
        for value in (
            *VALUES,
            *EXTREMES,
            *([[1.0, value] for value in VALUES] if name in ("buckets", "errors") else []),
        )
    ]


def is_number(value: Any) -> bool:
    """Not NaN, not negative; infinite where a float does not hold it, as every docstring here says."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


@pytest.mark.parametrize(("call", "name", "value"), cases())
def test_a_number_or_one_sentence(call: Callable[..., Any], name: str, value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = call(**{**CALLS[call], name: value})
        except (ConfigError, DataError, ShapeError, AssumptionError) as error:
            text = str(error)
            assert text.endswith(".") and not re.search(r"\.\s|\n", text) and len(text) < 250, text
            return
    wrong = value is None or isinstance(value, str | bytes | bool | list) or value != value
    assert not wrong or isinstance(value, list), f"{value!r} was taken"
    assert name not in WHOLE or float(value).is_integer()
    if isinstance(found, route.OrderBound):
        assert is_number(found.value) and found.constant > 0
        assert math.isfinite(found.constant) or found.value == math.inf
        if call in (route.dense_width, route.dense_samples, route.dense_forward_flops):
            assert found.value >= 1 or call is route.dense_samples
    elif isinstance(found, route.Exponent):
        assert math.isfinite(found.slope) and math.isfinite(found.residual) and is_number(found.factor)
    else:
        assert math.isfinite(found) if call is route.predicted_slope else type(found) is int and found >= 1


def test_the_table_has_every_argument_of_every_function() -> None:
    for call, good in CALLS.items():
        assert set(inspect.signature(call).parameters) == set(good)
    listed = {name for module in ("theory", "exponents", "geometry") for name in public(module)}
    assert listed <= {call.__name__ for call in CALLS}
    for call, good in CALLS.items():
        call(**good)


def public(module: str) -> list[str]:
    """Functions of a module that lazyneuron.route gives on."""
    return [
        name
        for name in route.__all__
        if inspect.isfunction(getattr(route, name)) and getattr(route, name).__module__ == f"lazyneuron.route.{module}"
    ]


def test_whole_numbers_of_numpy_do_not_overflow() -> None:
    for call, good in CALLS.items():
        if call is not route.fit_exponent:
            small = {name: np.int8(value) if isinstance(value, int) else value for name, value in good.items()}
            assert call(**small) == call(**good) or math.isnan(call(**good).failure_probability)


def test_cells_of_many_hyperplanes_are_counted_at_once() -> None:
    assert route.hyperplane_cells(hyperplanes=10_000, dimension=2**53) == 2**10_000
    assert route.hyperplane_cells(hyperplanes=30, dimension=4) == sum(math.comb(30, i) for i in range(5))
    with pytest.raises(ConfigError, match="of at most 10000, got 10001"):
        route.hyperplane_cells(hyperplanes=10_001, dimension=2)


@pytest.mark.parametrize("constant", [1e-300, 1e300])
def test_extreme_factors_cancel(constant: float) -> None:
    # the ratio alone leaves the floats on its way: L sqrt(d) / (C eps) = 12 / 1 with all of them far out
    sizes = {**SIZES, "lipschitz": 2.0 * constant, "error": 0.5 * constant}
    assert route.lsh_table_size(**sizes).value == pytest.approx(12**3, rel=1e-9)
    tiny = {**SIZES, "error": 1e-200, "lipschitz": 1e-190, "constant": 1e-150}
    assert route.dense_width(**{**tiny, "dimension": 1}).value == pytest.approx(3e160, rel=1e-9)
