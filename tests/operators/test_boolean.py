"""The operators on the Boolean cube against their definitions, on any shape, at every level."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels import needs_kernels
from tests.operators.calls import Arguments, check, expected, normal, operator, packed_bits, run
from tests.operators.definitions import subsets_of

pytestmark = needs_kernels

ROWS = st.sampled_from([0, 1, 2, 63, 64, 65, 130, 700])


@st.composite
def cubes(draw: st.DrawFn, *, least: int = 0) -> tuple[int, int, int]:
    """Rows, coordinates and a degree."""
    n = draw(st.integers(least, 7))
    return draw(ROWS), n, draw(st.integers(0, n))


def _subsets(n: int, degree: int) -> Tensor:
    width = max(degree, 1)
    sets = [list(s) + [-1] * (width - len(s)) for s in subsets_of(n, degree)]
    return torch.tensor(sets, dtype=torch.int16).reshape(-1, width)


@st.composite
def arguments(draw: st.DrawFn, name: str) -> Arguments:
    rows, n, degree = draw(cubes())
    bits, isa = packed_bits(n, rows, seed=draw(st.integers(0, 9))), draw(st.integers(-1, best()))
    count = len(subsets_of(n, degree))
    if name == "fwht_":
        dtype = draw(st.sampled_from([torch.float32, torch.float64]))
        return {"x": normal(draw(st.integers(0, 3)), 2 ** draw(st.integers(0, 9)), dtype=dtype), "isa": isa}
    if name == "walsh_moments":
        return {"bits": bits, "rows": rows, "degree": degree, "isa": isa}
    if name == "walsh_analysis":
        return {"bits": bits, "y": normal(rows), "degree": degree, "isa": isa}
    if name == "walsh_synthesis":
        coefficient = normal(count) * (torch.arange(count) % 3 > 0)  # zeros take a way of their own
        return {"bits": bits, "coefficient": coefficient, "rows": rows, "degree": degree, "isa": isa}
    if name == "walsh_gram":
        degree = min(degree, 3)
        moments = operator("walsh_moments")(bits, rows, min(n, 2 * max(degree, 1)), -1)
        chosen = _subsets(n, degree)[draw(st.permutations(range(len(_subsets(n, degree)))))[: draw(st.integers(0, 70))]]
        return {"subsets": chosen, "moments": moments, "n": n, "isa": isa}
    width = draw(st.sampled_from([1, 7, 63, 64, 65, 129]))
    few = draw(st.sampled_from([0, 1, 5, 130]))
    if name == "hamming_lookup":
        table = normal(64 * ((width + 63) // 64) + 1)
        other = packed_bits(draw(st.sampled_from([0, 1, 4])), width, seed=1)
        return {"a": packed_bits(few, width), "b": other, "table": table, "isa": isa}
    return {"rows": packed_bits(few, width), "y": normal(few), "n": width, "isa": isa}


OPERATORS = ("fwht_", "walsh_moments", "walsh_analysis", "walsh_synthesis", "walsh_gram",
             "hamming_lookup", "hamming_sums")  # fmt: skip


def best() -> int:
    return int(operator("best_boolean_isa")())


def check_against_definition(op: Callable[..., object], name: str, made: Arguments) -> None:
    """Whole numbers equal, sums of doubles within the limits for as many terms as any input holds."""
    wanted = expected(name, made)
    length = max(v.numel() for v in made.values() if isinstance(v, Tensor)) + 1
    if name == "fwht_":
        length = made["x"].shape[-1]  # type: ignore[attr-defined]
    assert wanted is not None
    check(run(op, name, made), wanted, length=length)


@pytest.mark.parametrize("name", OPERATORS)
@given(data=st.data())
@settings(max_examples=20)
def test_an_operator_is_its_definition(name: str, data: st.DataObject) -> None:
    check_against_definition(operator(name), name, data.draw(arguments(name)))


@pytest.mark.parametrize("name", OPERATORS)
@given(data=st.data())
@settings(max_examples=6)
def test_levels_and_threads_give_the_same_bits(name: str, data: st.DataObject) -> None:
    made = data.draw(arguments(name))
    before, found = torch.get_num_threads(), []
    try:
        for isa in range(best() + 1):
            for threads in (1, 2):
                torch.set_num_threads(threads)
                copies = {k: v.clone() if isinstance(v, Tensor) else v for k, v in made.items()}
                found.append(operator(name)(*{**copies, "isa": isa}.values()))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


def test_the_transform_applied_twice_multiplies_by_its_length() -> None:
    for levels in (17, 18):  # long enough for the strided passes
        x = torch.randint(-9, 9, (2, 2**levels), generator=torch.Generator().manual_seed(0)).double()
        twice = operator("fwht_")(operator("fwht_")(x.clone(), -1), -1)
        assert torch.equal(twice, x * 2**levels)


def _some() -> dict[str, Arguments]:
    bits, rows = packed_bits(6, 701), 701
    moments = operator("walsh_moments")(bits, rows, 4, -1)
    return {
        "fwht_": {"x": normal(2, 256), "isa": -1},
        "walsh_moments": {"bits": bits, "rows": rows, "degree": 3, "isa": -1},
        "walsh_analysis": {"bits": bits, "y": normal(rows), "degree": 3, "isa": -1},
        "walsh_synthesis": {"bits": bits, "coefficient": normal(42), "rows": rows, "degree": 3, "isa": -1},
        "walsh_gram": {"subsets": _subsets(6, 2), "moments": moments, "n": 6, "isa": -1},
        "hamming_lookup": {"a": packed_bits(9, 70), "b": packed_bits(7, 70, seed=1), "table": normal(129), "isa": -1},
        "hamming_sums": {"rows": packed_bits(60, 70), "y": normal(60), "n": 70, "isa": -1},
    }


def _one_term_dropped(made: Arguments) -> Arguments:
    """The last row, number or coefficient of the input counts for nothing."""
    key = next(k for k in ("y", "coefficient", "x", "table", "moments", "bits") if k in made)
    value = made[key].clone()  # type: ignore[attr-defined]
    if key == "bits":
        value[:, -1] &= ~(1 << 60)  # row 700 becomes all +1
    elif key == "table":
        value[35] = 0
    else:
        value.view(-1)[-1] = 0
    return {**made, key: value}


def _one_bit_flipped(made: Arguments) -> Arguments:
    """One coordinate of one row, one subset, or one place is taken for its neighbour."""
    key = next(k for k in ("bits", "rows", "a", "subsets", "gram", "x") if isinstance(made.get(k), Tensor))
    value = made[key].clone()  # type: ignore[attr-defined]
    if key in ("bits", "rows", "a"):
        value[1, 0] ^= 1 << 5
    elif key == "subsets":
        value[[1, 2]] = value[[2, 1]]
    else:
        value[1] = value[0]
    return {**made, key: value}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("fault", [_one_term_dropped, _one_bit_flipped])
def test_the_check_notices_a_planted_fault(name: str, fault: Callable[[Arguments], Arguments]) -> None:
    made = _some()[name]
    check_against_definition(
        operator(name), name, {k: v.clone() if isinstance(v, Tensor) else v for k, v in made.items()}
    )
    with pytest.raises(AssertionError):
        check_against_definition(
            lambda *given: operator(name)(*fault(dict(zip(made, given, strict=True))).values()), name, made
        )


@pytest.mark.parametrize("name", OPERATORS)
def test_the_check_notices_results_that_are_shifted_or_narrow(name: str) -> None:
    made = _some()[name]

    def shifted(*given: object) -> Tensor:
        return operator(name)(*given).roll(1, -1)

    def narrow(*given: object) -> Tensor:
        found = operator(name)(*given)
        return found.to({torch.float64: torch.float32, torch.float32: torch.bfloat16}.get(found.dtype, torch.int8)).to(
            found.dtype
        )

    for fault in (shifted, narrow):
        copies = {k: v.clone() if isinstance(v, Tensor) else v for k, v in made.items()}
        with pytest.raises(AssertionError):
            check_against_definition(fault, name, copies)
