"""Hash-consing against a dictionary, natively and in Python, and tables in files."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from lazyneuron.core.errors import CheckpointError, ConfigError, DataError, ImplUnavailable, ShapeError
from lazyneuron.ops.buckets import operators, reference
from lazyneuron.ops.native import load
from lazyneuron.route import BucketTable, load_table, random_hash, save_table, table_file
from tests.core.resealed import reseal

NATIVE = load.status().available
IMPLS = [pytest.param("native", marks=pytest.mark.skipif(not NATIVE, reason="not built here")), "python"]


def vectors_of(rows: list[tuple[int, ...]], width: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32).reshape(len(rows), width)


@pytest.mark.parametrize("impl", IMPLS)
@given(data=st.data(), width=st.integers(1, 11))
@settings(max_examples=40)
def test_slots_are_those_of_a_dictionary(impl: str, data: st.DataObject, width: int) -> None:
    number = st.sampled_from([0, 1, -1, 7, 2**31 - 1, -(2**31)])
    batches = data.draw(st.lists(st.lists(st.tuples(*[number] * width), max_size=90), max_size=4))
    table, known = BucketTable(width, impl=impl), {}
    for rows in batches:
        want = [known.setdefault(row, len(known)) for row in rows]
        assert table.add(vectors_of(rows, width)).tolist() == want
    asked = data.draw(st.lists(st.tuples(*[number] * width), max_size=90))
    assert table.find(vectors_of(asked, width)).tolist() == [known.get(row, -1) for row in asked]
    assert [tuple(row) for row in table.vectors.tolist()] == list(known) and len(table) == len(known)


@pytest.mark.skipif(not NATIVE, reason="not built here")
def test_growth_keeps_every_bucket_apart() -> None:
    g = torch.Generator().manual_seed(0)
    vectors = torch.randint(-9, 9, (200_000, 5), generator=g, dtype=torch.int32)
    table = BucketTable(5, impl="native")
    slots = torch.cat([table.add(part) for part in vectors.split(30_011)])
    distinct, inverse = torch.unique(vectors, dim=0, return_inverse=True)
    assert len(table) == len(distinct) == int(slots.max()) + 1
    first = torch.full((len(distinct),), -1)
    first[inverse] = slots
    assert torch.equal(first[inverse], slots)  # equal vectors, equal slots
    assert torch.equal(table.vectors[slots], vectors)  # and a slot's vector is that of each of its rows


@pytest.mark.parametrize("impl", IMPLS)
def test_a_full_table_refuses_or_shares(impl: str) -> None:
    rows = vectors_of([(k % 7, 0) for k in range(20)], 2)
    table = BucketTable(2, capacity=5, impl=impl)
    with pytest.raises(DataError, match="full with 5 buckets"):
        table.add(rows)
    assert len(table) == 5 and table.find(rows[:7]).tolist() == [0, 1, 2, 3, 4, -1, -1]
    shared = BucketTable(2, capacity=5, on_full="share", impl=impl)
    assert shared.find(rows[:1]).tolist() == [-1]
    assert shared.add(rows).tolist() == [min(k % 7, 5) for k in range(20)]
    assert shared.shared_rows == 5 and len(shared) == 5 and shared.native is None
    assert shared.find(vectors_of([(99, 99), (3, 0)], 2)).tolist() == [5, 3]
    with pytest.raises(ConfigError, match="cannot be merged"):
        table.merge(shared)


@pytest.mark.parametrize("impl", IMPLS)
def test_merging_says_where_slots_went(impl: str) -> None:
    one, two = BucketTable(1, impl=impl), BucketTable(1, impl=impl)
    one.add(vectors_of([(5,), (6,)], 1))
    two.add(vectors_of([(6,), (9,), (5,)], 1))
    assert one.merge(two).tolist() == [1, 2, 0] and one.vectors.flatten().tolist() == [5, 6, 9]


@pytest.mark.parametrize("impl", IMPLS)
def test_save_load_and_copy(impl: str, tmp_path: Path) -> None:
    table = BucketTable(3, capacity=3000, on_full="share", impl=impl)
    vectors = torch.randint(-50, 50, (4000, 3), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    slots = table.add(vectors)
    save_table(table, tmp_path / "t")
    for again in (load_table(tmp_path / "t", impl=impl), copy.deepcopy(table)):
        assert torch.equal(again.find(vectors), slots)
        assert (again.capacity, again.on_full, again.shared_rows) == (3000, "share", table.shared_rows)


def test_corrupt_and_foreign_files(tmp_path: Path) -> None:
    table = BucketTable(2)
    table.add(vectors_of([(1, 2), (3, 4)], 2))
    with pytest.raises(CheckpointError, match="does not hold a saved bucket table"):
        load_table(tmp_path)
    save_table(table, tmp_path)
    document = tmp_path / "route.json"
    (tensors,) = tmp_path.glob("route-*.safetensors")
    good, facts = tensors.read_bytes(), document.read_text()
    for damaged in (good[:-9], good.replace(b"\3\0\0\0\4\0\0\0", b"\1\0\0\0\2\0\0\0")):
        tensors.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is not the file that was saved"):
            load_table(tmp_path)
    tensors.write_bytes(good)
    for change in (
        {"kind": "cake"}, {"format": 9}, {"hashes": 3}, {"hashes": "x"}, {"hashes": 10**30}, {"capacity": 1},
        {"capacity": None}, {"shared_rows": 10**30}, {"shared_rows": -1}, {"shared_rows": 3}, {"on_full": []},
    ):  # fmt: skip
        document.write_text(facts)
        reseal(document, lambda content, change=change: content | change)
        with pytest.raises(CheckpointError):
            load_table(tmp_path)
    document.write_text("[]")
    with pytest.raises(CheckpointError):
        load_table(tmp_path)


def test_a_bucket_that_is_named_twice_is_refused() -> None:
    tensors, facts = table_file.table_tensors(BucketTable(2))
    with pytest.raises(CheckpointError, match="one bucket twice"):
        table_file.table_from({**tensors, "vectors": vectors_of([(1, 2), (1, 2)], 2)}, facts)


def test_a_table_of_an_earlier_version_is_read_and_its_file_goes_when_it_is_saved_again(tmp_path: Path) -> None:
    table = BucketTable(2)
    table.add(vectors_of([(1, 2), (3, 4)], 2))
    tensors, facts = table_file.table_tensors(table)
    save_file(tensors, tmp_path / "route.safetensors")
    (tmp_path / "route.json").write_text(json.dumps({"format": 1, "kind": "bucket table", **facts}))
    again = load_table(tmp_path)
    assert torch.equal(again.vectors, table.vectors)
    save_table(again, tmp_path)
    assert not (tmp_path / "route.safetensors").exists()
    assert torch.equal(load_table(tmp_path).vectors, table.vectors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("features", "hashes"), [(1, 1), (8, 8), (3, 13), (40, 5), (129, 17)])
def test_native_hashes_are_those_of_python(dtype: torch.dtype, features: int, hashes: int) -> None:
    g = torch.Generator().manual_seed(0)
    h = random_hash(features, hashes, width=0.3, generator=g)
    x = torch.randn(500, features, generator=g).to(dtype)
    python = h.vectors(x, impl="python")
    want = torch.floor((x.double() @ h.directions + h.offsets) / h.width)
    assert torch.equal(python.double(), want)
    assert torch.equal(h.vectors(x, shift=3, impl="python"), python >> 3)
    if NATIVE:
        assert torch.equal(h.vectors(x, impl="native"), python)
        assert torch.equal(h.vectors(x, shift=3, impl="native"), python >> 3)
        odd = x.t().contiguous().t()
        assert torch.equal(h.vectors(odd, impl="native"), python)
    assert h.vectors(x[:0]).shape == (0, hashes)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, 3e9, -3e9])
def test_what_lies_in_no_bucket_is_refused(impl: str, value: float) -> None:
    h = random_hash(2, 2, width=1.0, generator=torch.Generator().manual_seed(0), orthogonal=True)
    x = torch.zeros(70, 2, dtype=torch.float64)
    x[65, 0] = value
    with pytest.raises(DataError, match="NaN or infinity" if not abs(value) < math.inf else "32 bits"):
        h.vectors(x, impl=impl)


@pytest.mark.parametrize("impl", IMPLS)
def test_the_edge_of_the_integers(impl: str) -> None:
    h = random_hash(1, 1, width=1.0, generator=torch.Generator().manual_seed(0))
    h = type(h)(
        directions=torch.ones(1, 1, dtype=torch.float64), offsets=torch.zeros(1, dtype=torch.float64), width=1.0
    )
    edges = torch.tensor([[2147483646.5], [-2147483646.5], [-0.5], [0.0], [-1.0]], dtype=torch.float64)
    assert h.vectors(edges, impl=impl).flatten().tolist() == [2147483646, -2147483647, -1, 0, -1]


@pytest.mark.skipif(not NATIVE, reason="not built here")
@pytest.mark.parametrize("degree", [0, 1])
def test_native_moments_and_values_are_those_of_python(degree: int) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 5, generator=g).double(), torch.randn(300, 2, generator=g).double()
    slots = torch.randint(-1, 20, (300,), generator=g)
    width = reference.moment_width(5, 2, degree=degree)
    sums = [torch.zeros(20, width, dtype=torch.float64) for _ in range(2)]
    ops = operators.native_ops("native")
    odd_x, odd_y = x.t().contiguous().t(), y.t().contiguous().t()
    operators.accumulate_(sums[0], slots, odd_x, odd_y, degree=degree, ops=ops)
    assert not odd_x.is_contiguous() and not odd_y.is_contiguous()
    operators.accumulate_(sums[1], slots, x, y, degree=degree)
    torch.testing.assert_close(*sums)
    rows = x[slots == 3]
    assert sums[1][3, 0] == len(rows)
    torch.testing.assert_close(sums[1][3, 1:3], y[slots == 3].sum(0))
    if degree:
        upper = (rows.t() @ rows)[tuple(torch.triu_indices(5, 5))]
        torch.testing.assert_close(sums[1][3, 10:25], upper)
        torch.testing.assert_close(sums[1][3, 25:], (y[slots == 3].t() @ rows).flatten())


def test_bad_tables() -> None:
    for bad in (
        {"hashes": 0},
        {"hashes": 2, "capacity": 0},
        {"hashes": 2, "on_full": "drop"},
        {"hashes": 2, "impl": "x"},
    ):
        with pytest.raises(ConfigError):
            BucketTable(bad.pop("hashes"), **bad)
    for wrong in (torch.zeros(2, 2), torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)):
        with pytest.raises(ShapeError, match="int32 of shape"):
            BucketTable(2).add(wrong)
    with pytest.raises(ShapeError, match="Rows of 2 numbers"):
        random_hash(2, 2, width=1.0, generator=torch.Generator()).vectors(torch.zeros(3, 3))


def test_a_named_implementation_runs_or_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYNEURON_NATIVE", "off")
    assert operators.native_ops("auto") is None
    with pytest.raises(ImplUnavailable):
        operators.native_ops("native")
