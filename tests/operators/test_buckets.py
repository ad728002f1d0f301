"""The bucket operators against dictionaries and loops, on any shape."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lazyneuron.ops.buckets.operators import native_ops, pack
from tests.kernels import needs_kernels
from tests.operators.calls import Arguments, check, expected, normal, operator, run, table
from tests.operators.definitions import unpacked

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
    records, tags = pack(keys, normal(count, outputs * (1 + degree * features)), ops=native_ops())
    return {
        "x": x, "w": w, "b": b, "hashes": hashes, "shift": 0, "records": records, "tags": tags,
        "outputs": outputs, "degree": degree,
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


@given(data=st.data())
@settings(max_examples=20)
def test_packed_buckets_are_all_there_once(data: st.DataObject) -> None:
    """Each key with its numbers and its slot, at a place that a search from its home reaches; the rest is empty."""
    hashes, columns = data.draw(st.integers(1, 19)), data.draw(st.integers(0, 20))
    keys = torch.unique(grid(data.draw(st.sampled_from([1, 2, 65, 150])), hashes, seed=hashes).to(torch.int32), dim=0)
    values = normal(len(keys), columns)
    records, tags = pack(torch.cat([keys, keys]), values, ops=native_ops())
    assert records.shape[1] % 8 == 0 and int((tags[:-4] != 0).sum()) == len(keys) and len(records) == 2 * len(keys)
    wrapped = torch.arange(4) % len(records)
    assert torch.equal(tags[-4:][: len(records)], tags[wrapped][: len(records)])
    found, numbers, slots = unpacked(records, tags, hashes, columns)
    assert sorted(slots.tolist()) == list(range(len(keys)))
    assert torch.equal(found, keys[slots]) and torch.equal(numbers, values[slots])


def test_a_full_row_of_tags_and_keys_that_share_them() -> None:
    """Many keys in few places: tags coincide and searches go around the end; every key is found, and no other one."""
    for count in (1, 2, 3, 500):
        keys = torch.arange(count, dtype=torch.int32)[:, None]
        values = torch.arange(count, dtype=torch.float64)[:, None]
        records = torch.zeros(count + 1, 8, dtype=torch.int64)
        tags = torch.zeros(count + 5, dtype=torch.int16)
        operator("bucket_pack")(keys, count, values, records, tags)
        x = torch.arange(-3, count + 3, dtype=torch.float64)[:, None]
        w, b = torch.zeros(1, 8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
        w[0, 0] = 1.0
        y, slots = torch.empty(len(x), 1, dtype=torch.float64), torch.empty(len(x), dtype=torch.int64)
        operator("bucket_predict")(x, w, b, 1, 0, records, tags, 1, 0, y, slots)
        inside = (x[:, 0] >= 0) & (x[:, 0] < count)
        assert torch.equal(slots, torch.where(inside, x[:, 0].long(), -1))
        assert torch.equal(y, torch.where(inside, x[:, 0], 0.0)[:, None])


def _row_off_by_one(made: Arguments) -> Arguments:
    """One row is read from the place of its neighbour."""
    key = "x" if "x" in made else "rows"
    value = made[key].clone()  # type: ignore[attr-defined]
    value[5] = value[6]
    return {**made, key: value}


def _one_key_wrong(made: Arguments) -> Arguments:
    """One number of a direction, a key or a target is another one, or the first word of every packed bucket."""
    key = next(k for k in ("records", "y", "keys", "w") if k in made)
    value = made[key].clone()  # type: ignore[attr-defined]
    value[:: 1 if key == "records" else len(value), 0] += 1
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
