"""What each native operator returns, by its definition: loops and tables over a few rows, no compiled code."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyneuron.ops.jsrelu.reference import reference, reference_backward
from lazyneuron.ops.quantised.format import Format, quantise_columns, quantise_rows
from tests.operators.quantised import decode_columns, decode_rows

Written = tuple[object, ...]  # what comes back, then each argument that is written, in the operator's order


def signs(words: Tensor, count: int) -> Tensor:
    """Each row of packed words as +-1, (rows, count)."""
    bits = words.numpy().view(np.uint8).reshape(len(words), 8 * words.shape[1])
    return torch.from_numpy(1.0 - 2.0 * np.unpackbits(bits, axis=1, bitorder="little")[:, :count])


def subsets_of(n: int, degree: int) -> list[tuple[int, ...]]:
    """Graded colexicographic order: by size, then by the largest element, and so on."""
    sets = [s for k in range(degree + 1) for s in itertools.combinations(range(n), k)]
    return sorted(sets, key=lambda s: (len(s), s[::-1]))


def features(bits: Tensor, rows: int, degree: int) -> Tensor:
    """The character of every subset on every row, (rows, subsets)."""
    x = signs(bits, rows).T
    return torch.stack([x[:, list(s)].prod(1) for s in subsets_of(bits.shape[0], degree)], 1)


def _print(piece: np.ndarray) -> int:
    """64 chains modulo 2^32 side by side, turned by 15 bits a step; then one sum modulo 2^64, as a signed number."""
    words = np.pad(piece, (0, -len(piece) % 256)).view("<u4").tolist()
    lanes = [0] * 64
    for number, word in enumerate(words):
        turned = (lanes[number % 64] << 15 | lanes[number % 64] >> 17) % 2**32
        lanes[number % 64] = (turned * 0x9E3779B1 + word) % 2**32
    mix = 0x9E3779B97F4A7C15
    total = (len(piece) + sum(lane * pow(mix, k + 1, 2**64) for k, lane in enumerate(lanes))) % 2**64
    return total - 2**64 if total >= 2**63 else total


def _pieces(memory: Tensor) -> list[np.ndarray]:
    data = memory.numpy()
    return list(data) if data.ndim == 2 else [data[k : k + 4096] for k in range(0, len(data), 4096)]


def packed_marks(kept: Tensor) -> Tensor:
    """Rows of booleans as bits, the first in the lowest place of the first byte."""
    return torch.from_numpy(np.packbits(kept.contiguous().numpy(), axis=1, bitorder="little"))


def _marks(bits: Tensor, width: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, bitorder="little")[:, :width].astype(bool))


def mark_fired(z: Tensor, factor: Tensor | None, left: float, low: float, high: float, isa: int) -> Written:
    x = z.float().numpy()
    with np.errstate(over="ignore"):
        kept = ~((x <= np.float32(left)) | ((x >= np.float32(low)) & (x <= np.float32(high))))
    if factor is not None:
        kept &= ~(factor.float().numpy() <= 0)
    return (packed_marks(torch.from_numpy(kept)),)


def gather_fired(dense: Tensor, bits: Tensor, isa: int) -> Written:
    return (dense[_marks(bits, dense.shape[1])],)


def scatter_fired(bits: Tensor, values: Tensor, width: int, isa: int) -> Written:
    dense = torch.zeros(len(bits), width, dtype=values.dtype)
    dense[_marks(bits, width)] = values
    return (dense,)


def fired_rows(bits: Tensor, values: Tensor, rows: Tensor, isa: int) -> Written:
    out = torch.zeros(len(bits), rows.shape[1], dtype=torch.float64)
    for value, (t, j) in zip(values.double(), _marks(bits, len(rows)).nonzero(), strict=True):
        out[t] += value * rows[j].double()
    return (out.float(),)


def fired_columns(bits: Tensor, values: Tensor, dense: Tensor, neurons: int, isa: int) -> Written:
    out = torch.zeros(neurons, dense.shape[1], dtype=torch.float64)
    for value, (t, j) in zip(values.double(), _marks(bits, neurons).nonzero(), strict=True):
        out[j] += value * dense[t].double()
    return (out.float(),)


def fired_dots(bits: Tensor, dense: Tensor, rows: Tensor, isa: int) -> Written:
    pairs = _marks(bits, len(rows)).nonzero()
    return ((dense.double()[pairs[:, 0]] * rows.double()[pairs[:, 1]]).sum(1).float(),)


def quantised_linear(x: Tensor, rows: Tensor, scale: Tensor, bias: Tensor, bits: int, group: int, isa: int) -> Written:
    weight = decode_rows(rows, scale, width=x.shape[-1], bits=bits, group=group)
    return ((x.double() @ weight.T + bias.double()).to(x.dtype),)


def quantised_down(x: Tensor, rows: Tensor, scale: Tensor, bias: Tensor, bits: int, group: int, isa: int) -> Written:
    return ((x.double() @ decode_columns(rows, scale, bits=bits, group=group) + bias.double()).to(x.dtype),)


def quantised_mlp(x: Tensor, *rest: Any) -> Written:
    """Of ReLU."""
    first, first_scale, first_bias, up, up_scale, up_bias, _, down, down_scale, down_bias, counts, bits, group, *_ = (
        rest
    )
    decode = functools.partial(decode_rows, width=x.shape[-1], bits=bits, group=group)
    hidden = (x.double() @ decode(first, first_scale).T + first_bias.double()).clamp(min=0)
    fired = int((hidden > 0).sum())
    if up is not None:
        hidden = hidden * (x.double() @ decode(up, up_scale).T + up_bias.double())
    y = hidden @ decode_columns(down, down_scale, bits=bits, group=group) + down_bias.double()
    return y.to(x.dtype), counts + torch.tensor([fired, fired, x.numel() // x.shape[-1], 1])


def candidates(x: Tensor, sketch: Tensor, certificate: Tensor, rows: int, k: int, isa: int) -> Written:
    """Intervals of every product, one row and token at a time; of float32."""
    numbers = certificate.tolist()
    places = [(i // 64, i % 64) for i in range(rows)]
    weight = [(sketch[p, :, i].flatten()[: x.shape[-1]].double() - 128) * numbers[0][64 * p + i] for p, i in places]
    wanted = [False] * rows
    for token in x.double().reshape(-1, x.shape[-1]):
        norm, ends = float(token.norm()), []
        for i, row in enumerate(weight):
            middle = float(row @ token) + numbers[1][i]
            reach = numbers[2][i] * norm + numbers[4][i]
            ends.append((middle - reach, middle + reach) if norm <= numbers[5][i] else (-math.inf, math.inf))
        least = sorted((low for low, _ in ends), reverse=True)[k - 1]
        edge = least - abs(least) * 2.0**-21 - 2.0**-100
        wanted = [before or not high < edge for before, (_, high) in zip(wanted, ends, strict=True)]
    return (torch.tensor(wanted, dtype=torch.uint8),)


def quantise(weight: Tensor, data: Tensor, scale: Tensor, bits: int, group: int, by_neuron: bool, isa: int) -> Written:
    form = Format(bits=bits, group=group if bits == 4 else 32)
    made = quantise_columns(weight.T, form) if by_neuron else quantise_rows(weight, form)
    return 0, made.bytes, made.scale


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float, rounds_first: bool, isa: int) -> Written:
    size = (x.double().square().sum(-1, keepdim=True) / x.shape[-1] + eps).sqrt()
    return (((weight.double() + offset) * x.double() / size).to(x.dtype),)


def single_query_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, isa: int) -> Written:
    """One query and one head at a time."""
    y = torch.empty(q.shape[0], 1, q.shape[1], q.shape[3], dtype=torch.float64)
    for b, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        shared = h * k.shape[1] // q.shape[1]
        weights = (scale * k[b, shared].double() @ q[b, h, 0].double()).exp()
        y[b, 0, h] = weights @ v[b, shared].double() / weights.sum()
    return (y.to(q.dtype),)


def fingerprint(memory: list[Tensor]) -> Written:
    return (torch.tensor([_print(piece) for each in memory for piece in _pieces(each)], dtype=torch.int64),)


def first_change(memory: list[Tensor], wanted: Tensor, turn: int, turns: int, parts: int) -> Written:
    at = 0
    for number, each in enumerate(memory):
        count = len(_pieces(each))
        begin = count * turn // turns
        for k in range(begin, min(max(begin + 1, count * (turn + parts) // turns), count)):
            if _print(_pieces(each)[k]) != int(wanted[at + k]):
                return (number,)
        at += count
    return (-1,)


def fwht_(x: Tensor, isa: int) -> Written:
    length = x.shape[-1]
    if x.numel() == 0:
        return x, x
    index = np.arange(length)
    common = [[bin(int(a & b)).count("1") for b in index] for a in index]
    found = (x.double() @ (1.0 - 2.0 * (torch.tensor(common) % 2).double())).to(x.dtype)
    return found, found


def walsh_moments(bits: Tensor, rows: int, degree: int, isa: int) -> Written:
    return (features(bits, rows, degree).sum(0).to(torch.int32),)


def walsh_analysis(bits: Tensor, y: Tensor, degree: int, isa: int) -> Written:
    return (features(bits, y.numel(), degree).T @ y.flatten(),)


def walsh_synthesis(bits: Tensor, coefficient: Tensor, rows: int, degree: int, isa: int) -> Written:
    return (features(bits, rows, degree) @ coefficient.flatten(),)


def walsh_gram(subsets: Tensor, moments: Tensor, n: int, isa: int) -> Written:
    place = {s: k for k, s in enumerate(subsets_of(n, min(n, 2 * subsets.shape[1])))}
    sets = [{t for t in row if t >= 0} for row in subsets.tolist()]
    found = [[moments[place[tuple(sorted(a ^ b))]] for b in sets] for a in sets]
    return (torch.tensor(found, dtype=torch.float32).reshape(len(sets), len(sets)),)


def distances(a: Tensor, b: Tensor) -> Tensor:
    p, q = signs(a, 64 * a.shape[1]), signs(b, 64 * b.shape[1])
    return (p[:, None] != q[None]).sum(2)


def hamming_lookup(a: Tensor, b: Tensor, table: Tensor, isa: int) -> Written:
    return (table.flatten()[distances(a, b)],)


def hamming_sums(rows: Tensor, y: Tensor, n: int, isa: int) -> Written:
    found, apart, value = torch.zeros(n + 1, dtype=torch.float64), distances(rows, rows), y.flatten()
    for i, j in itertools.combinations(range(len(rows)), 2):
        found[apart[i, j]] += value[i] * value[j]
    return (found,)


def bucket_hash(x: Tensor, w: Tensor, b: Tensor, hashes: int, shift: int) -> Written:
    z = torch.floor(x.double() @ w[:, :hashes] + b[:hashes])
    return (z.to(torch.int32) >> shift,)


def known(keys: Tensor, count: int) -> dict[tuple[int, ...], int]:
    return {tuple(key): slot for slot, key in reversed(list(enumerate(keys[:count].tolist())))}


def bucket_find(rows: Tensor, index: Tensor, keys: Tensor, count: int) -> Written:
    slots = known(keys, count)
    return (torch.tensor([slots.get(tuple(row), -1) for row in rows.tolist()], dtype=torch.int64),)


def bucket_insert(rows: Tensor, index: Tensor, keys: Tensor, state: Tensor, slots: Tensor, start: int) -> Written:
    """The index is left out (None): where in it an entry lies is its own affair."""
    keys, slots, found = keys.clone(), slots.clone(), known(keys, int(state[0]))
    for r in range(start, len(rows)):
        row = tuple(rows[r].tolist())
        if row not in found:
            if len(found) == len(keys):
                return r, None, keys, torch.tensor([len(found)]), slots
            keys[len(found)] = rows[r]
            found[row] = len(found)
        slots[r] = found[row]
    return len(rows), None, keys, torch.tensor([len(found)]), slots


def bucket_accumulate(sums: Tensor, slots: Tensor, x: Tensor, y: Tensor, degree: int) -> Written:
    sums = sums.clone()
    for r, slot in enumerate(slots.tolist()):
        if slot < 0:
            continue
        moments = [torch.ones(1, dtype=torch.float64), y[r], y[r] ** 2]
        if degree:
            d = x.shape[1]
            moments += [x[r], *(x[r, i] * x[r, i:] for i in range(d)), *(x[r] * out for out in y[r])]
        sums[slot] += torch.cat(moments)
    return None, sums


def unpacked(records: Tensor, tags: Tensor, hashes: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, numbers and slots of the places in use, in the order of the places."""
    used, first = records[tags[: len(records)] != 0], (hashes + 1) // 2
    keys = used[:, :first].contiguous().view(torch.int32)[:, :hashes]
    return keys, used[:, first : first + columns].contiguous().view(torch.float64), used[:, first + columns]


def bucket_predict(
    x: Tensor, w: Tensor, b: Tensor, hashes: int, shift: int, records: Tensor, tags: Tensor,
    outputs: int, degree: int, y: Tensor, slots: Tensor,
) -> Written:  # fmt: skip
    keys, values, named = unpacked(records, tags, hashes, outputs * (1 + degree * x.shape[1]))
    (place,) = bucket_find(bucket_hash(x, w, b, hashes, shift)[0], keys, keys, len(keys))
    if not len(keys):
        return None, torch.zeros_like(y), place
    at = torch.where(place < 0, -1, named[place.clamp(min=0)])
    one = torch.ones(len(x), 1, dtype=torch.float64)
    row = torch.cat([one, x.double()], 1) if degree else one
    held = values[place.clamp(min=0)].reshape(len(x), outputs, row.shape[1])
    found = (held * row[:, None]).sum(2) * (at >= 0)[:, None]
    return None, found, at


def jsrelu(x: Tensor, mix: float, cap: float, isa: int) -> Written:
    return (reference(x, mix, cap),)


def jsrelu_backward(gradient: Tensor, x: Tensor, mix: float, cap: float, isa: int) -> Written:
    return (reference_backward(gradient, x, mix, cap),)


def sparse_mlp(
    x: Tensor, sketch: Tensor, certificate: Tensor, first_rows: Tensor, up_rows: Tensor | None,
    up_bias: Tensor | None, rectify_up: bool, down_rows: Tensor, down_bias: Tensor | None, counts: Tensor,
    *rest: object,
) -> Written:  # fmt: skip
    """A ReLU block that keeps its weights; counts are left out."""
    h = (x.double() @ first_rows.double().T + certificate[1, : len(first_rows)].double()).relu()
    if up_rows is not None:
        up = x.double() @ up_rows.double().T + (0 if up_bias is None else up_bias.double())
        h = h * (up.relu() if rectify_up else up)
    y = h @ down_rows.double() + (0 if down_bias is None else down_bias.double())
    return y.to(x.dtype), None
