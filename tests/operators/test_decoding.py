"""Norms and attention of single queries are their definitions at every level."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lazyneuron.ops.decoding import layers, operators, reference, step
from lazyneuron.ops.quantised.format import Format, Rows, quantise_rows
from tests.kernels import LEVELS, needs_kernels
from tests.operators import calls

pytestmark = needs_kernels
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def steps(got: Tensor, wanted: Tensor) -> float:
    """The largest difference, in last places of the dtype."""
    step = torch.finfo(got.dtype).eps
    return float(((got.double() - wanted.double()).abs() / (step * wanted.double().abs().clamp_min(1e-3))).max())


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("offset", "rounds_first"), [(0.0, True), (0.0, False), (1.0, False)])
@pytest.mark.parametrize("width", [1, 15, 16, 100])
def test_a_norm(isa: int, dtype: torch.dtype, offset: float, rounds_first: bool, width: int) -> None:
    x, weight = normal(2, 3, width, dtype=dtype), normal(width, dtype=dtype, seed=1)
    got = operators.operators().rms_norm(x, weight, 1e-5, offset, rounds_first, isa)
    wanted = reference.rms_norm(x.double(), weight, eps=1e-5, offset=offset)
    wanted = wanted if not rounds_first else reference.rms_norm(x, weight, eps=1e-5, offset=offset, rounds_first=True)
    assert steps(got, wanted) < (16 if dtype == torch.float32 else 2.1)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "heads", "shared", "keys", "width"),
    [(1, 1, 1, 1, 16), (2, 4, 4, 15, 32), (3, 8, 2, 33, 64), (1, 6, 1, 700, 80)],
)
def test_attention(isa: int, dtype: torch.dtype, batch: int, heads: int, shared: int, keys: int, width: int) -> None:
    q = 3 * normal(batch, heads, 1, width, dtype=dtype)
    k, v = (normal(batch, shared, keys, width, dtype=dtype, seed=s) for s in (1, 2))
    got = operators.operators().single_query_attention(q, k, v, width**-0.5, isa)
    wanted = reference.single_query_attention(q.double(), k, v, width**-0.5)
    assert got.shape == (batch, 1, heads, width)
    assert not batch or (got.double() - wanted).abs().max() < {torch.float32: 3e-6, torch.float16: 2e-3}.get(
        dtype, 1.6e-2
    )


@pytest.mark.parametrize("isa", LEVELS)
def test_attention_far_apart_and_not_finite(isa: int) -> None:
    q, k = torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 3, 16)
    q[..., 0] = 1.0
    k[0, 0, :, 0] = torch.tensor([0.0, 1000.0, -3e38])  # the others weigh nothing, and nothing overflows
    v = normal(1, 1, 3, 16, dtype=torch.float32)
    attend = operators.operators().single_query_attention
    assert torch.equal(attend(q, k, v, 1.0, isa)[0, 0, 0], v[0, 0, 1])
    k[0, 0, 0, 0] = math.nan
    assert attend(q, k, v, 1.0, isa).isnan().all()


def test_strided_inputs_are_read_as_they_are() -> None:
    q = normal(2, 1, 4, 32, dtype=torch.bfloat16).transpose(1, 2)
    k = normal(2, 9, 2, 32, dtype=torch.bfloat16, seed=1).transpose(1, 2)
    got = operators.operators().single_query_attention(q, k, k, 0.2)
    same = operators.operators().single_query_attention(q.contiguous(), k.contiguous(), k.contiguous(), 0.2)
    assert torch.equal(got, same)


def test_arguments_that_do_not_fit_are_refused() -> None:
    q, k = normal(1, 4, 1, 32, dtype=torch.float32), normal(1, 2, 9, 32, dtype=torch.float32)
    attend = operators.operators().single_query_attention
    for bad, words in (
        ((q.expand(1, 4, 2, 32), k, k), "Single queries"),
        ((q[..., :20], k, k), "multiple of 16"),
        ((q, k[:, :, :0], k), "no keys"),
        ((q[:, :3], k, k), "multiple of those"),
        ((q, k, k[:, :, :5]), "values"),
        ((q, k.double(), k), "keys"),
    ):
        with pytest.raises(RuntimeError, match=words):
            attend(*bad, 1.0)
    with pytest.raises(RuntimeError, match="weight"):
        operators.operators().rms_norm(q, normal(31, dtype=torch.float32), 1e-5, 0.0, False)


def step_arguments(
    dtype: torch.dtype, *, bits: int, batch: int, biased: bool, together: bool, headed: bool
) -> list[object]:
    """Arguments of ``attention_step``; ``together``: queries, keys and values lie one behind the other."""
    form, made = Format(bits=bits, group=32), [normal(n, 128, dtype=torch.float32, seed=n) / 11 for n in (96, 32, 33)]
    first = [quantise_rows(w[:n], form) for w, n in zip(made, (96, 32, 32), strict=True)]
    last = quantise_rows(normal(128, 96, dtype=torch.float32) / 9, form)
    bias = [normal(n, dtype=dtype, seed=n) for n in (96, 32, 32)]
    rows, scales = [r.bytes for r in first], [r.scale for r in first]
    if together:
        rows, scales, bias = (list(torch.cat(held).split([96, 32, 32])) for held in (rows, scales, bias))
    one, other = normal(32, dtype=dtype, seed=7), normal(32, dtype=dtype, seed=8)
    return [
        normal(batch, 1, 128, dtype=dtype), [normal(128, dtype=dtype, seed=s) for s in (3, 4)], 1e-3, 1.0, False,
        [*rows, last.bytes], [*scales, last.scale], bias if biased else [],
        normal(128, dtype=dtype) if biased else None,
        bits, 32, [one, other] if headed else [], normal(batch, 1, 32, dtype=dtype, seed=5).clamp(-1, 1),
        normal(1, 1, 32, dtype=dtype, seed=6).clamp(-1, 1).expand(batch, 1, 32).contiguous(),
        normal(batch, 1, 9, 32, dtype=dtype, seed=9), normal(batch, 1, 9, 32, dtype=dtype, seed=10), 6, 0.2,
    ]  # fmt: skip


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("bits", "batch", "biased", "together", "headed"),
    [(8, 1, False, True, False), (8, 3, True, True, True), (4, 2, True, False, False), (4, 1, False, True, True)],
)
def test_a_step_through_the_attention_of_a_layer(
    isa: int, dtype: torch.dtype, bits: int, batch: int, biased: bool, together: bool, headed: bool
) -> None:
    made = step_arguments(dtype, bits=bits, batch=batch, biased=biased, together=together, headed=headed)
    x, norms, eps, offset, rounds, rows, scales, bias, last_bias, _, group, heads, cos, sin, keys, values, at, scale = (
        made
    )
    form, every = Format(bits=bits, group=group), [*(bias or [None] * 3), last_bias]
    widths = [128, 128, 128, 96]
    layers = [
        (Rows(format=form, bytes=r, scale=s, width=w), b)
        for r, s, w, b in zip(rows, scales, widths, every, strict=True)
    ]
    rule = step.NormRule(eps=eps, offset=offset, rounds_first=rounds)
    wanted = step.attention_step(x, norms, rule, layers, heads, (cos, sin), (keys, values), at, scale)
    kept = keys.clone(), values.clone()
    sums, normed = operators.operators().attention_step(*made, isa)
    limit = {torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}[dtype]
    for got, right in zip((sums, normed, keys, values), wanted, strict=True):
        error = (got.double() - right).abs()
        assert error.max() < limit * right.abs().max() and error.square().mean() < (limit * right.std() / 3) ** 2
    for held, before in zip((keys, values), kept, strict=True):
        assert torch.equal(held[:, :, :at], before[:, :, :at]) and torch.equal(
            held[:, :, at + 1 :], before[:, :, at + 1 :]
        )


def test_a_step_gives_the_same_bits_in_one_product_or_three_and_at_all_levels_of_rotation() -> None:
    facts = {"bits": 8, "batch": 2, "biased": True, "headed": False}
    outputs = []
    for together in (True, False):
        made = step_arguments(torch.bfloat16, together=together, **facts)
        outputs.append((*operators.operators().attention_step(*made), made[14], made[15]))
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def test_a_step_that_does_not_fit_is_refused() -> None:
    def refused(place: int, value: object, words: str) -> None:
        made = step_arguments(torch.float32, bits=8, batch=2, biased=True, together=True, headed=True)
        made[place] = value
        with pytest.raises(RuntimeError, match=words):
            operators.operators().attention_step(*made)

    good = step_arguments(torch.float32, bits=8, batch=2, biased=True, together=True, headed=True)
    rows, keys = good[5], good[14]
    refused(0, torch.zeros(2, 3, 128), "one token a sequence")
    refused(1, good[1][:1], "a norm before its attention and one after")
    refused(5, rows[:3], "four layers")
    refused(5, [rows[0], rows[1], rows[2][:16], rows[3]], "scales|no heads")
    refused(7, good[7][:2], "Biases are those")
    refused(11, good[11][:1], "one for queries and one for keys")
    refused(12, torch.zeros(3, 1, 32), "Angles are")
    refused(14, keys[:, :, :6].contiguous(), "memory for 6 keys")
    refused(15, keys[:1], "values")
    refused(16, -1, "memory for 9 keys")
    refused(16, 9, "memory for 9 keys")


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_together_are_layers_one_by_one(isa: int, dtype: torch.dtype) -> None:
    """The definition on the operators of each layer, to the last bit, cache and counts included."""
    forms, weights = calls.layers(dtype)
    call: dict[str, Any] = calls.decoder_layers(dtype)
    one_by_one = {name: [t.clone() for t in call[name]] for name in ("keys", "values", "counts")}
    native = operators.operators()
    wanted = layers.decoder_layers(
        call["x"], (call["cos"], call["sin"]), weights,
        list(zip(one_by_one["keys"], one_by_one["values"], strict=True)), one_by_one["counts"], forms, call["at"],
        attention_step=functools.partial(native.attention_step, isa=isa),
        quantised_mlp=functools.partial(native.quantised_mlp, isa=isa),
        sparse_mlp=functools.partial(native.sparse_mlp, isa=isa),
    )  # fmt: skip
    found = native.decoder_layers(**{**call, "isa": isa})
    assert len(found) == 3 and all(map(torch.equal, found, wanted))
    assert all(torch.equal(a, b) for name, held in one_by_one.items() for a, b in zip(call[name], held, strict=True))
    assert all(counted[2:].tolist() == [2, 1] for counted in call["counts"]) and not torch.equal(found[0], call["x"])


def test_layers_that_do_not_fit_are_refused() -> None:
    def refused(words: str, **changes: Any) -> None:
        with pytest.raises(RuntimeError, match=words):
            operators.operators().decoder_layers(**{**calls.decoder_layers(), **changes})

    call: dict[str, Any] = calls.decoder_layers()
    refused("3 layers do not fit", values=call["values"][:1])
    refused("3 layers do not fit", forms=call["forms"][:-1])
    refused("3 layers do not fit", numbers=[*call["numbers"], 0.0])
    refused("more weights than", weights=call["weights"][:-1])
    refused("fewer weights than", weights=[*call["weights"], call["x"]])
    refused("norm", weights=[call["weights"][2], *call["weights"][1:]])
    refused("memory for 5 keys", at=5)
    refused("4 or 8 bits", forms=[call["forms"][0], 5, *call["forms"][2:]])
    refused("from 0 to 7", forms=[*call["forms"][:5], 9, *call["forms"][6:]])
    narrow = [*call["weights"]]
    bare = len(calls.decoder_layers()["weights"]) - 7 - 10 - 2  # before the last layer, and before its last two
    narrow[bare] = narrow[bare][:, :32].contiguous()
    refused("gives 64 numbers for 128", weights=narrow)
