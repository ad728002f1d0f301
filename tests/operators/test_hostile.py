"""Every operator gets every kind of wrong argument: it answers with one sentence, or rightly."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.accelerate.execution import opaque
from lazyneuron.accelerate.status import executions
from lazyneuron.core.errors import ConfigError
from tests.accelerate.comparison import check_close
from tests.kernels import NATIVE, needs_kernels
from tests.operators.calls import CALLS, Arguments, check, expected, normal, operator, run

pytestmark = needs_kernels

NUMBERS = (-(2**63), -2, -1, 0, 1, 2, 3, 99, 2**31, 2**40, 2**62, 2**63 - 1)
TABLE = {
    "index",
    "keys",
    "count",
    "state",
    "records",
    "tags",
}  # an index that belongs to other keys finds what it finds
# made at first use, for graphs; those of GPUs have their own tests
IN_PYTHON = {"decoder_layer", "execute_block", "exported_block", "quantised_selected"}
IN_PYTHON |= {"gpu_mlp", "gpu_linear", "gpu_down"}
CODES = ("NOT_FINITE", "BUCKET_OVERFLOW")  # route turns them into sentences of its own


def reshaped(t: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Other dtypes, strides and shapes."""
    for dtype in (torch.int8, torch.float64, torch.float32, torch.int64):
        if t.dtype != dtype:
            yield str(dtype), t.to(dtype)
    yield "strided", torch.stack([t, t], -1)[..., 0]
    yield "transposed", t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() else t
    # what strides say of an axis of one number, and of no numbers, means nothing
    lying = [777 if n == 1 else stride for n, stride in zip(t.shape, t.stride(), strict=True)]
    yield "other strides of axes of one", torch.as_strided(t.clone(), t.shape, lying)
    yield "expanded", torch.as_strided(t.clone(), t.shape, [0] * t.dim())
    yield "one axis more", t[None].clone()
    yield "one axis", t.flatten().clone()
    yield "a number", t.flatten()[0].clone()
    endless = 2 ** (60 // max(t.dim(), 1))
    for axis in range(t.dim()):
        n = t.shape[axis]
        yield f"axis {axis} one shorter", t.narrow(axis, 0, n - 1).contiguous()
        yield f"axis {axis} one longer", torch.cat([t, t.narrow(axis, 0, 1)], axis)
        yield f"axis {axis} empty", t.narrow(axis, 0, 0).contiguous()
        yield f"axis {axis} empty, in strides", t.narrow(axis, 0, 0)
        yield f"axis {axis} of one", t.narrow(axis, 0, 1)
        yield (
            f"axis {axis} empty, others endless",
            t.new_empty([0 if a == axis else endless for a in range(t.dim())]),
        )
    lost = t.clone()
    lost.untyped_storage().resize_(0)
    yield "lost memory", lost


def refilled(t: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Other contents: in the right places, of the right kind, and wrong."""
    g = torch.Generator().manual_seed(0)
    if t.dtype.is_floating_point:
        values = [float("nan"), float("inf"), torch.finfo(t.dtype).min]
    else:
        info = torch.iinfo(t.dtype)
        values = [-1, 1, info.min, info.max]
        yield "noise", torch.randint(info.min, info.max, t.shape, dtype=t.dtype, generator=g)
        yield "small noise", torch.randint(0, 9, t.shape, dtype=t.dtype, generator=g)
    for value in values:
        yield f"all {value}", torch.full_like(t, value)


def sentence(error: Exception) -> bool:
    text = str(error)
    return text in CODES or (re.fullmatch(r"[^\n]{20,400}\.", text) is not None and ".cpp" not in text)


def outcome(name: str, changed: Arguments, *, defined: bool) -> str:
    """Empty when all is well: refused with a sentence, or what the definition says of the changed arguments."""
    arguments = {**CALLS[name](), **changed}
    defined &= not set(changed) & (TABLE | ({"hashes"} if name == "bucket_predict" else set()))  # keys of other lengths
    # torch itself does not survive the copy of a tensor without memory
    kept = {k: v.clone() if isinstance(v, Tensor) and v.untyped_storage().nbytes() else v for k, v in arguments.items()}
    try:
        got = run(operator(name), name, arguments)
    except RuntimeError as error:
        return "" if sentence(error) else f"no sentence: {error}"
    wanted = expected(name, kept) if defined else None
    if wanted is not None:
        try:
            check(got, wanted, length=100)
        except AssertionError:
            return "a wrong answer"
    return ""


@pytest.mark.parametrize("name", CALLS)
def test_a_good_call_is_answered_by_its_definition(name: str) -> None:
    arguments = CALLS[name]()
    wanted = expected(name, arguments)
    got = run(operator(name), name, arguments)
    if wanted is not None:
        check(got, wanted, length=100)


def test_every_operator_has_a_good_call() -> None:
    operator("best_isa")
    names = {n.split("::")[1] for n in torch._C._dispatch_get_all_op_names() if n.startswith("lazyneuron::")}
    assert names - IN_PYTHON == {name.split()[0] for name in CALLS}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_tensor_is_refused_or_answered_rightly(name: str) -> None:
    wrong = []
    for key, value in CALLS[name]().items():
        first, *others = value if isinstance(value, list) else [value]
        if not isinstance(first, Tensor):
            continue
        for kinds, defined in ((reshaped, True), (refilled, False)):
            for kind, hostile in kinds(first):
                found = outcome(name, {key: [hostile, *others] if others else hostile}, defined=defined)
                wrong += [f"{key}, {kind}: {found}"] * bool(found)
    assert not wrong


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_number_is_refused_or_answered_rightly(name: str) -> None:
    wrong = []
    for key, value in CALLS[name]().items():
        if isinstance(value, float):
            numbers: tuple[object, ...] = (float("nan"), float("inf"), -float("inf"), 1e300)
        elif value is None or isinstance(value, Tensor | bool | list):
            continue
        else:
            numbers = NUMBERS
        for number in numbers:
            defined = not isinstance(value, float) and not name.startswith(("sparse_mlp", "quantised_mlp"))
            found = outcome(name, {key: number}, defined=defined)
            wrong += [f"{key} = {number}: {found}"] * bool(found)
    assert not wrong


@pytest.mark.parametrize("name", [n for n in CALLS if n.startswith(("sparse_mlp", "walsh", "hamming", "bucket"))])
def test_two_wrong_tensors_are_refused_or_answered_rightly(name: str) -> None:
    """What is wrong in one argument must not hide behind another that is wrong to match."""
    tensors = [key for key, value in CALLS[name]().items() if isinstance(value, Tensor)]
    wrong = []
    for one, other in itertools.combinations(tensors, 2):
        made = CALLS[name]()
        for axis in (0, -1):
            for count in (0, 1):
                cut = {k: made[k].narrow(axis, 0, min(count, made[k].shape[axis])).contiguous() for k in (one, other)}  # type: ignore[attr-defined]
                found = outcome(name, cut, defined=True)
                wrong += [f"{one} and {other} cut to {count}: {found}"] * bool(found)
    assert not wrong


def _full(made: Arguments) -> Arguments:
    return {"index": torch.full((64,), 1 << 40 | 1)}


def _elsewhere(made: Arguments) -> Arguments:
    entries = made["index"]
    return {"index": torch.where(entries == 0, 0, (entries & ~0xFFFFFFFF) | 31)}  # type: ignore[operator]


def _no_features(made: Arguments) -> Arguments:
    sketch = torch.empty(2, 0, 64, 4, dtype=torch.uint8)
    return {"x": torch.ones(2, 0), "first_rows": torch.ones(70, 0), "sketch": sketch}


def _endless(made: Arguments) -> Arguments:
    """Four times 2^62 rows, which are none where a sum wraps around."""
    return {"memory": [torch.empty(2**62, 0, dtype=torch.uint8)] * 4, "wanted": torch.empty(0, dtype=torch.int64)}


NAMED: list[tuple[str, Callable[[Arguments], Arguments], str]] = [
    ("sparse_mlp", lambda m: {"x": m["x"].to(torch.int8)}, "float32, bfloat16 and float16, got int8"),
    ("sparse_mlp", _no_features, "1 to 32768 features, got 0"),
    ("sparse_mlp", lambda m: {"x": torch.ones(2, 12)}, "input has 12 features, and the block's first layer takes 20"),
    ("sparse_mlp", lambda m: {"x": torch.ones(())}, "at least one axis"),
    ("sparse_mlp", lambda m: {"x": m["x"].bfloat16()}, "rows of the first layer must be a contiguous bfloat16"),
    ("sparse_mlp", lambda m: {"down_bias": torch.ones(1).expand(24)}, "bias of down must be .*, got strided float32"),
    ("sparse_mlp gated", lambda m: {"up_bias": torch.ones(1).expand(70)}, "bias of up must be a contiguous"),
    ("sparse_mlp", lambda m: {"counts": torch.zeros(3, dtype=torch.int64)}, "counts must be"),
    ("fingerprint", lambda m: {"memory": [torch.ones(3)]}, "uint8 vectors and matrices, got float32"),
    ("fingerprint", lambda m: {"memory": [m["memory"][0][::2]]}, "side by side, got 2 apart"),
    ("fingerprint", lambda m: {"memory": [m["memory"][0].reshape(5, 5, 200)]}, "of shape"),
    ("first_change", lambda m: {"memory": m["memory"][:1]}, "is of 9 pieces, the memory of 2"),
    ("first_change", lambda m: {"memory": [*m["memory"], m["memory"][0]]}, "is of 9 pieces, the memory of 11"),
    ("first_change", lambda m: {"turn": 4}, "turn is from 0 to turns - 1"),
    ("first_change", lambda m: {"parts": 4}, "parts is from 1 to turns - turn, got 4 from 1 of 4"),
    ("first_change", lambda m: {"parts": 0}, "parts is from 1"),
    ("first_change", _endless, "at most 2147483648 rows a tensor"),
    ("jsrelu", lambda m: {"x": m["x"].to(torch.int8)}, "float32, bfloat16 and float16, got int8"),
    ("fwht_", lambda m: {"x": torch.ones(6, dtype=torch.float64)}, "power of two long, got 6"),
    ("walsh_moments", lambda m: {"bits": torch.full((5, 2), -1)}, "bits behind their last row"),
    ("walsh_moments", lambda m: {"bits": torch.empty(9000, 0, dtype=torch.int64), "rows": 0, "degree": 16}, "too many"),
    ("walsh_gram", lambda m: {"subsets": m["subsets"].flip(1)}, "rising order"),
    ("walsh_gram", lambda m: {"subsets": m["subsets"] + 1}, "from 0 to 4"),
    ("walsh_gram", lambda m: {"n": -1}, "0 to 32767 coordinates, got -1"),
    ("hamming_lookup", lambda m: {"table": m["table"][:71]}, "must be 129 contiguous float64 numbers"),
    ("hamming_sums", lambda m: {"n": 65}, "bits behind n = 65"),
    ("bucket_find", _full, "names no slot of theirs, or is full"),
    ("bucket_insert", _full, "names no slot of theirs, or is full"),
    ("bucket_find", _elsewhere, "names no slot of theirs"),
    ("bucket_insert", lambda m: {"state": torch.zeros(0, dtype=torch.int64)}, "state must be"),
    ("bucket_insert", lambda m: {"slots": m["index"][:40]}, "index and slots share memory"),
    ("bucket_accumulate", lambda m: {"slots": m["slots"] + 1}, "slot 4 of 4"),
    ("bucket_accumulate", lambda m: {"sums": m["x"][:, :1].clone()}, "sums of these moments must be"),
    ("bucket_predict", lambda m: {"outputs": 2**62}, "fewer than 2.24 features and outputs"),
    ("bucket_predict", lambda m: {"tags": m["tags"][:-1]}, "tags must be a contiguous int16"),
    ("bucket_pack", lambda m: {"count": len(m["records"])}, "fewer than the places"),
    ("bucket_pack", lambda m: {"count": -1}, "got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "match"), NAMED)
def test_what_is_wrong_is_said(name: str, change: Callable[[Arguments], Arguments], match: str) -> None:
    arguments = CALLS[name]()
    with pytest.raises(RuntimeError, match=match) as caught:
        operator(name)(*{**arguments, **change(arguments)}.values())
    assert sentence(caught.value)


@pytest.mark.parametrize("name", [n for n in CALLS if NATIVE and "isa" in CALLS[n]() and not n.startswith("best")])
@pytest.mark.parametrize("isa", [-2, 99, 2**62])
def test_a_level_that_is_none_is_refused(name: str, isa: int) -> None:
    with pytest.raises(RuntimeError, match="ask for one from 0 to that, or -1 for the best"):
        operator(name)(*{**CALLS[name](), "isa": isa}.values())


def test_a_block_that_is_gone_is_refused() -> None:
    for number in (-1, 2**62):
        with pytest.raises(ConfigError, match="acceleration that is gone"):
            opaque.op()(torch.ones(2, 3), number, 3)


@pytest.mark.parametrize("spread", [False, True])
def test_a_block_called_as_an_operator_with_something_else_than_its_input(spread: bool) -> None:
    body = nn.Sequential(nn.Linear(20, 70), nn.ReLU(), nn.Linear(70, 24))
    model = (nn.Sequential(nn.LayerNorm(20), *body) if spread else body).eval().requires_grad_(False)
    lazy.accelerate_(model, impl="native")
    (execution,) = executions(model)
    call, number, x = opaque.op(), execution._number, normal(3, 20, dtype=torch.float32)
    check_close(call(x, number, 24), execution.original(x), length=90)
    for width in (-1, 0, 20, 25, 2**62):
        with pytest.raises(ConfigError, match="outputs are 24 wide"):
            call(x, number, width)
    for wrong, match in ((x[:, :19], "shapes cannot be multiplied"), (x.double(), "same dtype"), (x[0, 0], "1D")):
        with pytest.raises(RuntimeError, match=match):
            call(wrong, number, 24)
    assert call(x[:0], number, 24).shape == (0, 24)
    assert call(x.to("meta"), number, 24).shape == (3, 24)
    with pytest.raises(RuntimeError, match="autograd"):
        call(x.clone().requires_grad_(), number, 24).sum().backward()


@pytest.mark.parametrize("shape", [(0, 20), (2, 0, 20), (20,), (1, 1, 1, 20)])
def test_blocks_without_tokens_neurons_or_outputs(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    assert operator("sparse_mlp")(*{**CALLS["sparse_mlp"](), "x": x}.values()).shape == (*shape[:-1], 24)
    made = CALLS["sparse_mlp"]()
    empty = {
        "sketch": torch.empty(0, 5, 64, 4, dtype=torch.uint8), "certificate": torch.empty(6, 0),
        "first_rows": torch.empty(0, 20), "down_rows": torch.empty(0, 24),
    }  # fmt: skip
    y = operator("sparse_mlp")(*{**made, "x": x, **empty}.values())
    assert torch.equal(y, made["down_bias"].expand(*shape[:-1], 24))  # type: ignore[attr-defined]
    no_output = {"down_rows": torch.empty(70, 0), "down_bias": torch.empty(0)}
    assert operator("sparse_mlp")(*{**made, "x": x, **no_output}.values()).shape == (*shape[:-1], 0)
