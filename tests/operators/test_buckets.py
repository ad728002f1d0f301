"""The bucket operators against dictionaries and loops, on any shape."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels import needs_kernels
from tests.operators.calls import Arguments, check, expected, normal, operator, run, table

pytestmark = needs_kernels

OPERATORS = ("bucket_hash", "bucket_find", "bucket_insert", "bucket_accumulate", "bucket_predict")
ROWS = st.sampled_from([0, 1, 7, 63, 64, 65, 150])


def grid(rows: int, columns: int, *, seed: int, span: int = 3) -> Tensor:
    """Few different numbers, so that rows fall into common buckets."""
    return torch.randint(-span, span, (rows, columns), generator=torch.Generator().manual_seed(seed))


def affine(features: int, hashes: int) -> tuple[Tensor, Tensor]:
    """Multiples of a quarter: every hash is exact, whatever the order of its sum."""
    padded = (hashes + 7) // 8 * 8
    w, b = torch.zeros(features, padded, dtype=torch.float64), torch.zeros(padded, dtype=torch.float64)
    w[:, :hashes], b[:hashes] = grid(features, hashes, seed=1) / 4, grid(1, hashes, seed=2)[0] / 4
    return w, b


def build(name: str, *, rows: int, features: int, hashes: int, degree: int, outputs: int, seed: int) -> Arguments:
    x = grid(rows, features, seed=seed).to(torch.float32 if seed % 2 else torch.float64)
    w, b = affine(features, hashes)
    wanted = operator("bucket_hash")(x, w, b, hashes, 0)
    index, keys, state = table(wanted[: rows // 2], room=rows // 2 + seed % 5, entries=512)
    count = int(state[0])
    if name == "bucket_hash":
        return {"x": x, "w": w, "b": b, "hashes": hashes, "shift": seed % 3}
    if name == "bucket_find":
        return {"rows": wanted, "index": index, "keys": keys, "count": count}
    if name == "bucket_insert":
        slots = torch.full((rows,), -7)
        return {"rows": wanted, "index": index, "keys": keys, "state": state, "slots": slots, "start": min(rows, seed)}
    if name == "bucket_accumulate":
        width = 1 + 2 * outputs + degree * (features + features * (features + 1) // 2 + outputs * features)
        sums = torch.zeros(max(count, 1), width, dtype=torch.float64)
        slots = operator("bucket_find")(wanted, index, keys, count)
        return {"sums": sums, "slots": slots, "x": x.double(), "y": normal(rows, outputs), "degree": degree}
    return {
        "x": x, "w": w, "b": b, "shift": 0, "index": index, "keys": keys, "count": count,
        "values": normal(count + 1, outputs * (1 + degree * features)), "outputs": outputs, "degree": degree,
        "y": torch.empty(rows, outputs, dtype=torch.float64), "slots": torch.empty(rows, dtype=torch.int64),
    }  # fmt: skip


def check_against_definition(op: Callable[..., object], name: str, made: Arguments) -> None:
    """Slots and hashes equal; sums within the limits for as many terms as there are rows and features."""
    wanted = expected(name, made)
    assert wanted is not None
    check(run(op, name, made), wanted, length=200)


@pytest.mark.parametrize("name", OPERATORS)
@given(data=st.data())
@settings(max_examples=20)
def test_an_operator_is_its_definition(name: str, data: st.DataObject) -> None:
    sizes = {"rows": data.draw(ROWS), "features": data.draw(st.integers(1, 9)), "hashes": data.draw(st.integers(1, 19))}
    kind = {"degree": data.draw(st.integers(0, 1)), "outputs": data.draw(st.integers(1, 3))}
    check_against_definition(operator(name), name, build(name, **sizes, **kind, seed=data.draw(st.integers(0, 99))))


@given(rows=ROWS, hashes=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_a_table_made_anew_finds_the_same(rows: int, hashes: int, seed: int) -> None:
    keys = grid(rows, hashes, seed=seed).to(torch.int32)
    index, held, state = table(keys, room=rows + 1, entries=256)
    found = operator("bucket_find")(keys, index, held, int(state[0]))
    noise = torch.randint(0, 2**62, (1024,), generator=torch.Generator().manual_seed(seed))
    operator("bucket_rehash")(noise, held, int(state[0]))
    assert torch.equal(operator("bucket_find")(keys, noise, held, int(state[0])), found)
    assert torch.equal(held[found], keys)


def _row_off_by_one(made: Arguments) -> Arguments:
    """One row is read from the place of its neighbour."""
    key = "x" if "x" in made else "rows"
    value = made[key].clone()  # type: ignore[attr-defined]
    value[5] = value[6]
    return {**made, key: value}


def _one_key_wrong(made: Arguments) -> Arguments:
    """One number of a direction, a key, a value or a target is its neighbour's."""
    key = next(k for k in ("values", "y", "keys", "w") if k in made)
    value = made[key].clone()  # type: ignore[attr-defined]
    value[0, 0] = value[0, 0] + 1
    return {**made, key: value}


def example(name: str) -> Arguments:
    return build(name, rows=65, features=4, hashes=3, degree=1, outputs=2, seed=4)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("fault", [_row_off_by_one, _one_key_wrong])
def test_the_check_notices_a_planted_fault(name: str, fault: Callable[[Arguments], Arguments]) -> None:
    check_against_definition(operator(name), name, example(name))
    made = fault(example(name))
    right, wrong = example(name), run(operator(name), name, made)
    wanted = expected(name, right)
    with pytest.raises(AssertionError):
        check(wrong, wanted, length=200)  # type: ignore[arg-type]


def test_the_check_notices_sums_in_float32() -> None:
    for name, at in (("bucket_accumulate", 1), ("bucket_predict", 1)):
        wanted = expected(name, example(name))
        narrow = [v.float().double() if i == at else v for i, v in enumerate(run(operator(name), name, example(name)))]  # type: ignore[attr-defined]
        with pytest.raises(AssertionError):
            check(tuple(narrow), wanted, length=200)  # type: ignore[arg-type]
