"""The Triton kernels; imported only where they run, since importing triton takes a second.

`first` computes the layer that decides what fires, and of a gated block the rows of ``up`` that its firing neurons ask
for. `down` lists what fires in a segment of neurons, sums their rows, and the last program of a column adds the
segments up in their order: no count, offset or list ever leaves the device, and results do not depend on timing.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from lazyneuron.ops.gpu_mlp.available import interprets

_INTERPRETED = tl.constexpr(interprets())


@triton.jit
def _rounded(z, OUT: tl.constexpr):
    """Float32 numbers that OUT holds: to the nearest, ties to even. The interpreter's own casts to bfloat16 cut off."""
    if tl.bfloat16 == OUT:
        bits = z.to(tl.int32, bitcast=True)
        near = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)
        r = tl.where(tl.abs(z) >= 0, near, z)  # NaN as it is
    else:
        r = z.to(OUT).to(tl.float32)
    return r


@triton.jit
def _factor(v):
    """What tl.dot takes: as it is, but the interpreter multiplies no bfloat16."""
    return v.to(tl.float32) if _INTERPRETED else v


@triton.jit
def _activate(z, a, b, KIND: tl.constexpr, OUT: tl.constexpr):
    """The function of a rounded pre-activation, rounded to OUT; kinds in the order of KERNEL_ACTIVATIONS, -1 for none.

    Comparisons are written so that NaN stays NaN.
    """
    if KIND == 0:
        s = tl.where(z <= 0, 0.0, z)
    elif KIND == 1:
        r = tl.where(z <= 0, 0.0, z)
        s = r * r
    elif KIND == 2:
        r = tl.where(z <= 0, 0.0, z)
        inside = tl.minimum(r, b)
        excess = r - inside
        bent = r + a * (inside * inside / 2 + tl.where(excess > 0, b * excess, 0.0))
        s = tl.where(a == 0, r, bent)
    elif KIND == 3:
        s = tl.where(z <= a, 0.0, z)
    elif KIND == 4:
        s = z / (1 + tl.exp(-z))
    elif KIND == 5 or KIND == 7:  # noqa: PLR1714 - Triton knows no sets
        s = 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))
    elif KIND == 6:
        s = z / (1 + tl.exp(-1.5957691216057308 * (z + 0.044715 * z * z * z)))
    else:
        s = z
    s = _rounded(s, OUT)
    if KIND == 7:
        s = tl.where(z <= a, 0.0, _rounded(s - b, OUT))
    elif KIND >= 4:
        s = tl.where(tl.abs(s) <= a, 0.0, s)
    return s


@triton.jit
def _kept(x, x_stride, rows, stride, n, live, t, told, width, OUT: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
          T: tl.constexpr):  # fmt: skip
    """(N, T) products of rows ``n`` of a 16- or 32-bit matrix with tokens ``t``; only live rows are read."""
    acc = tl.zeros([N, K if T == 1 else T], dtype=tl.float32)
    for k0 in range(0, width, K):
        k = k0 + tl.arange(0, K)
        w = tl.load(rows + n[:, None] * stride + k[None, :], mask=live[:, None] & (k < width)[None, :], other=0.0)
        if T == 1:
            v = tl.load(x + k, mask=k < width, other=0.0)
            acc += w.to(tl.float32) * v.to(tl.float32)[None, :]
        else:  # (K, T)
            v = tl.load(x + t[None, :] * x_stride + k[:, None], mask=told[None, :] & (k < width)[:, None], other=0.0)
            acc = tl.dot(_factor(w), _factor(v), acc, input_precision="ieee")
    return tl.sum(acc, 1)[:, None] if T == 1 else acc


@triton.jit
def _eight(x, x_stride, rows, stride, n, live, t, told, width, OUT: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
           T: tl.constexpr):  # fmt: skip
    """As :func:`_kept` of bytes ``q + 128``, the row's scale left out."""
    acc = tl.zeros([N, K if T == 1 else T], dtype=tl.float32)
    for k0 in range(0, width, K):
        k = k0 + tl.arange(0, K)
        q = tl.load(rows + n[:, None] * stride + k[None, :], mask=live[:, None] & (k < width)[None, :], other=128)
        q = q.to(tl.float32) - 128
        if T == 1:
            v = tl.load(x + k, mask=k < width, other=0.0)
            acc += q * v.to(tl.float32)[None, :]
        else:  # whole numbers of 8 bits are exact in every dtype
            v = tl.load(x + t[None, :] * x_stride + k[:, None], mask=told[None, :] & (k < width)[:, None], other=0.0)
            acc = tl.dot(_factor(q.to(OUT)), _factor(v), acc, input_precision="ieee")
    return tl.sum(acc, 1)[:, None] if T == 1 else acc


@triton.jit
def _two_parts(w, v, acc):
    """``acc + w v`` of float32 numbers of at most 16 bits and of bfloat16 ones, by products of bfloat16."""
    high = w.to(tl.bfloat16)
    low = (w - high.to(tl.float32)).to(tl.bfloat16)
    acc = tl.dot(_factor(high), _factor(v), acc)
    return tl.dot(_factor(low), _factor(v), acc)


@triton.jit
def _four(x, x_stride, rows, stride, scale, scale_stride, units, unit_count, n, live, t, told, width,
          OUT: tl.constexpr, N: tl.constexpr, K: tl.constexpr, T: tl.constexpr):  # fmt: skip
    """As :func:`_kept` of nibbles in blocks, scales applied.

    A unit is 64 bytes; ``units`` says of each the element that it begins with, the steps of its block and that block's
    number (`layout.py`). Of byte ``4 lane + j`` the low nibble is element ``begin + 4 steps lane + j``, the high one is
    four behind it.
    """
    acc = tl.zeros([N, K if T == 1 else T], dtype=tl.float32)
    for k0 in range(0, 64 * unit_count, K):
        k = k0 + tl.arange(0, K)
        unit = k // 64
        inside = unit < unit_count
        begin = tl.load(units + 3 * unit, mask=inside, other=0)
        steps = tl.load(units + 3 * unit + 1, mask=inside, other=0)
        block = tl.load(units + 3 * unit + 2, mask=inside, other=0)
        lane = (k % 64) // 4
        low = begin + 4 * steps * lane + k % 4
        high = low + 4
        read = live[:, None] & inside[None, :]
        q = tl.load(rows + n[:, None] * stride + k[None, :], mask=read, other=136).to(tl.int32)
        s = tl.load(scale + n[:, None] * scale_stride + (16 * block + lane)[None, :], mask=read, other=0.0)
        s = s.to(tl.float32)
        a = ((q & 15) - 8).to(tl.float32) * s
        b = ((q >> 4) - 8).to(tl.float32) * s
        if T == 1:
            va = tl.load(x + low, mask=inside & (low < width), other=0.0).to(tl.float32)
            vb = tl.load(x + high, mask=inside & (high < width), other=0.0).to(tl.float32)
            acc += a * va[None, :] + b * vb[None, :]
        else:
            at = x + t[None, :] * x_stride
            va = tl.load(at + low[:, None], mask=told[None, :] & (inside & (low < width))[:, None], other=0.0)
            vb = tl.load(at + high[:, None], mask=told[None, :] & (inside & (high < width))[:, None], other=0.0)
            if tl.bfloat16 == OUT:  # a weight has 12 bits: two numbers of 8
                acc = _two_parts(a, va, acc)
                acc = _two_parts(b, vb, acc)
            else:
                acc = tl.dot(a, va.to(tl.float32), acc, input_precision="tf32x3")
                acc = tl.dot(b, vb.to(tl.float32), acc, input_precision="tf32x3")
    return tl.sum(acc, 1)[:, None] if T == 1 else acc


@triton.jit
def _layer(x, x_stride, rows, stride, scale, scale_stride, bias, units, unit_count, n, live, t, told, width,
           BITS: tl.constexpr, HAS_BIAS: tl.constexpr, OUT: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
           T: tl.constexpr):  # fmt: skip
    """(N, T) outputs of a linear layer, rounded to OUT, as float32."""
    if BITS == 4:
        z = _four(x, x_stride, rows, stride, scale, scale_stride, units, unit_count, n, live, t, told, width, OUT, N, K,
                  T)  # fmt: skip
    elif BITS == 8:
        z = _eight(x, x_stride, rows, stride, n, live, t, told, width, OUT, N, K, T)
        z *= tl.load(scale + n * scale_stride, mask=live, other=0.0)[:, None]
    else:
        z = _kept(x, x_stride, rows, stride, n, live, t, told, width, OUT, N, K, T)
    if HAS_BIAS:
        z += tl.load(bias + n, mask=live, other=0.0).to(tl.float32)[:, None]
    return _rounded(z, OUT)


@triton.jit
def first(x, x_stride, rows, stride, scale, scale_stride, bias, up, up_stride, up_scale, up_scale_stride, up_bias,
          units, unit_count, h, counts, tickets, ticket_count, tokens, width, hidden, a, b, limit,
          BITS: tl.constexpr, KIND: tl.constexpr, GATED: tl.constexpr, RECTIFY: tl.constexpr, HAS_BIAS: tl.constexpr,
          HAS_UP_BIAS: tl.constexpr, COUNT: tl.constexpr, N: tl.constexpr, K: tl.constexpr, T: tl.constexpr,
          TICKETS: tl.constexpr):  # fmt: skip
    """Hidden activations h (tokens, hidden) of N neurons and T tokens; of what is silent for all T, ``up`` is not read.

    A token whose squared norm is above ``limit`` (or no number) could make a silent neuron's ``up`` overflow, which
    times zero is NaN: all of its neurons count as firing. Also clears the tickets that `down` draws.
    """
    OUT: tl.constexpr = x.dtype.element_ty
    block, tile = tl.program_id(0), tl.program_id(1)
    n = (block * N + tl.arange(0, N)).to(tl.int64)
    live = n < hidden
    t = (tile * T + tl.arange(0, T)).to(tl.int64)
    told = t < tokens
    if TICKETS > 0 and block == 0 and tile == 0:
        at = tl.arange(0, TICKETS)
        for start in range(0, ticket_count, TICKETS):
            tl.store(tickets + start + at, tl.zeros([TICKETS], dtype=tl.int32), mask=start + at < ticket_count)
    mine = x + tile.to(tl.int64) * T * x_stride if T == 1 else x
    z = _layer(mine, x_stride, rows, stride, scale, scale_stride, bias, units, unit_count, n, live, t, told, width,
               BITS, HAS_BIAS, OUT, N, K, T)  # fmt: skip
    s = _activate(z, a, b, KIND, OUT)
    valid = live[:, None] & told[None, :]
    if GATED:
        square = tl.zeros([T], dtype=tl.float32)
        for k0 in range(0, width, K):
            k = k0 + tl.arange(0, K)
            v = tl.load(x + t[None, :] * x_stride + k[:, None], mask=told[None, :] & (k < width)[:, None], other=0.0)
            square += tl.sum(v.to(tl.float32) * v.to(tl.float32), 0)
        wild = tl.where(square <= limit, 0, 1)
        asked = tl.max((valid & ((s != 0) | (wild[None, :] > 0))).to(tl.int32), 1) > 0
        if tl.max(asked.to(tl.int32), 0) > 0:
            u = _layer(mine, x_stride, up, up_stride, up_scale, up_scale_stride, up_bias, units, unit_count, n, asked,
                       t, told, width, BITS, HAS_UP_BIAS, OUT, N, K, T)  # fmt: skip
            if RECTIFY:
                u = tl.where(u <= 0, 0.0, u)
            s = tl.where(asked[:, None], s * u, s)
    s = _rounded(s, OUT)
    tl.store(h + t[None, :] * hidden + n[:, None], s.to(OUT), mask=valid)
    if COUNT:
        fires = (valid & (s != 0)).to(tl.int32)
        tl.atomic_add(counts + 0, tl.sum(tl.max(fires, 1), 0).to(tl.int64))
        tl.atomic_add(counts + 1, tl.sum(tl.sum(fires, 1), 0).to(tl.int64))
        if block == 0 and tile == 0:
            tl.atomic_add(counts + 2, tokens.to(tl.int64))
            tl.atomic_add(counts + 3, tl.full([], 1, dtype=tl.int64))


@triton.jit
def _write(acc, bias, y, partial, c, told, t, tokens, d_out, HAS_BIAS: tl.constexpr, SEGMENTS: tl.constexpr,
           N: tl.constexpr, T: tl.constexpr):  # fmt: skip
    """Outputs of N columns: the sums at hand, or those of all segments, which are there now."""
    OUT: tl.constexpr = y.dtype.element_ty
    mask = told[:, None] & (c < d_out)[None, :]
    if SEGMENTS > 1:
        acc = tl.zeros([T, N], dtype=tl.float32)
        for k in range(SEGMENTS):  # in their order, whichever came last
            there = partial + ((k * tokens) + t)[:, None] * d_out + c[None, :]
            acc += tl.load(there, mask=mask, other=0.0, cache_modifier=".cg")
    if HAS_BIAS:
        acc += tl.load(bias + c, mask=c < d_out, other=0.0).to(tl.float32)[None, :]
    tl.store(y + t[:, None] * d_out + c[None, :], _rounded(acc, OUT).to(OUT), mask=mask)


@triton.jit
def _listed(h, found, segment, tile, tokens, hidden, LENGTH: tl.constexpr, T: tl.constexpr):
    """Write a segment's neurons that fire for a token of a tile to ``found``, in their order; how many there are."""
    n = segment * LENGTH + tl.arange(0, LENGTH)
    fires = n < 0
    for k in range(T):
        token = (tile * T + k).to(tl.int64)
        value = tl.load(h + token * hidden + n, mask=(n < hidden) & (token < tokens), other=0.0)
        fires = fires | (value != 0)
    counted = fires.to(tl.int32)
    tl.store(found + tl.cumsum(counted, 0) - 1, n, mask=fires)
    tl.debug_barrier()  # the list is read by other threads than wrote it
    return tl.sum(counted, 0)


@triton.jit
def _added(acc, v, w, EXACT: tl.constexpr, T: tl.constexpr):
    """``acc`` and the products of (T, R) hidden values with (R, N) weights; of one token (R, N), to be summed later."""
    if T == 1:
        acc += v.to(tl.float32) * w.to(tl.float32)
    elif EXACT:
        acc = tl.dot(_factor(v), _factor(w), acc, input_precision="ieee")
    else:  # a weight of 4 bits has 12, more than tf32 keeps
        acc = tl.dot(v.to(tl.float32), w.to(tl.float32), acc, input_precision="tf32x3")
    return acc


@triton.jit
def down(h, rows, stride, scale, scale_stride, bias, y, partial, found, tickets, tokens, hidden, d_out,
         BITS: tl.constexpr, GROUP: tl.constexpr, HAS_BIAS: tl.constexpr, SEGMENTS: tl.constexpr, LENGTH: tl.constexpr,
         N: tl.constexpr, R: tl.constexpr, T: tl.constexpr):  # fmt: skip
    """y (tokens, d_out) of N columns: rows of a segment of LENGTH neurons, those alone that fire for one of T tokens.

    Of 4-bit rows byte ``16 c + r`` holds the columns ``32 c + r`` and ``32 c + 16 + r``: the two halves of N.
    """
    column, segment, tile = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = (tile * T + tl.arange(0, T)).to(tl.int64)
    told = t < tokens
    found += ((tile * SEGMENTS + segment).to(tl.int64) * tl.num_programs(0) + column) * LENGTH
    count = _listed(h, found, segment, tile, tokens, hidden, LENGTH, T)
    HALF: tl.constexpr = N // 2 if BITS == 4 else N
    byte = column * HALF + tl.arange(0, HALF)
    c = 32 * (byte // 16) + byte % 16 if BITS == 4 else byte
    low = tl.zeros([R if T == 1 else T, HALF], dtype=tl.float32)
    high = tl.zeros([R if T == 1 else T, HALF], dtype=tl.float32)
    for start in range(0, count, R):
        i = start + tl.arange(0, R)
        there = i < count
        j = tl.load(found + i, mask=there, other=0).to(tl.int64)
        read = there[:, None] & (c < d_out)[None, :]
        if T == 1:
            v = tl.load(h + tile.to(tl.int64) * hidden + j, mask=there, other=0.0)[:, None]
        else:
            v = tl.load(h + t[:, None] * hidden + j[None, :], mask=told[:, None] & there[None, :], other=0.0)
        w = tl.load(rows + j[:, None] * stride + byte[None, :], mask=read, other=0)
        if BITS == 4:
            s = tl.load(scale + j[:, None] * scale_stride + (c // GROUP)[None, :], mask=read, other=0.0).to(tl.float32)
            q = w.to(tl.int32)
            low = _added(low, v, ((q & 15) - 8).to(tl.float32) * s, False, T)
            high = _added(high, v, ((q >> 4) - 8).to(tl.float32) * s, False, T)
        elif BITS == 8:
            s = tl.load(scale + j * scale_stride, mask=there, other=0.0)
            low = _added(low, v.to(tl.float32) * (s[:, None] if T == 1 else s[None, :]), w, False, T)
        else:
            low = _added(low, v, w, True, T)
    if T == 1:
        low = tl.sum(low, 0)[None, :]
        high = tl.sum(high, 0)[None, :]
    last = 1
    if SEGMENTS > 1:
        mask = told[:, None] & (c < d_out)[None, :]
        at = partial + ((segment * tokens) + t)[:, None] * d_out + c[None, :]
        tl.store(at, low, mask=mask)
        if BITS == 4:  # groups divide d_out, so the second half is inside where the first is
            tl.store(at + 16, high, mask=mask)
        tl.debug_barrier()  # all of it is written before the ticket says so
        drawn = tl.atomic_add(tickets + tile * tl.num_programs(0) + column, 1)
        last = (drawn == SEGMENTS - 1).to(tl.int32)
    if last == 1:
        _write(low, bias, y, partial, c, told, t, tokens, d_out, HAS_BIAS, SEGMENTS, HALF, T)
        if BITS == 4:
            _write(high, bias, y, partial, c + 16, told, t, tokens, d_out, HAS_BIAS, SEGMENTS, HALF, T)
