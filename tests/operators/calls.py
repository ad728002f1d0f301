"""A good call of every native operator: its arguments by name, made anew for each use."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.accelerate.slack.certificate import build_sketch
from lazyneuron.blocks.activation import Activation
from lazyneuron.ops.buckets.operators import pack as pack_buckets
from lazyneuron.ops.decoding.layers import LayerForm
from lazyneuron.ops.native.load import load
from lazyneuron.ops.quantised import operators as quantised_operators
from lazyneuron.ops.quantised.format import Format, quantise_columns, quantise_rows
from lazyneuron.ops.sparse_mlp import native
from tests.accelerate.blocks import make_block
from tests.accelerate.comparison import check_close
from tests.operators import definitions
from tests.operators.quantised import Block, on_grid
from tests.operators.quantised import block as quantised_block

Arguments = dict[str, object]


def operator(name: str) -> torch._ops.OpOverload:
    load()
    return getattr(torch.ops.lazyneuron, name.split(maxsplit=1)[0]).default


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


def packed_bits(rows: int, columns: int, *, seed: int = 0) -> Tensor:
    """Random words of ``columns`` bits a row; what is behind them is zero."""
    bits = torch.randint(0, 2, (rows, columns), generator=torch.Generator().manual_seed(seed))
    words = torch.zeros(rows, (columns + 63) // 64, dtype=torch.int64)
    for c in range(columns):
        words[:, c // 64] |= bits[:, c] << (c % 64)
    return words


def table(keys: Tensor, *, room: int, entries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Index, keys and number of slots in use after the rows of ``keys`` were inserted."""
    index, held = torch.zeros(entries, dtype=torch.int64), torch.zeros(room, keys.shape[1], dtype=torch.int32)
    state, slots = torch.zeros(1, dtype=torch.int64), torch.empty(len(keys), dtype=torch.int64)
    operator("bucket_insert")(keys, index, held, state, slots, 0)
    return index, held, state


def block(*, gated: bool = False) -> Arguments:
    packed = pack(make_block(20, 70, 24, gated=gated))
    values = (normal(5, 20, dtype=torch.float32), *native.arguments(packed, native.new_counts(), planes=2))
    names = [a.name for a in operator("sparse_mlp")._schema.arguments]
    return dict(zip(names, values, strict=True))


@functools.cache
def _quantised_block(bits: int) -> Block:
    """Quantised once: no operator writes into it."""
    return quantised_block(256, 70, 64, bits=bits)


def quantised(name: str, *, bits: int, gated: bool = False) -> Arguments:
    first, up, down = _quantised_block(bits)
    x, bias, second = on_grid(5, 256), normal(70, dtype=torch.float32), normal(64, dtype=torch.float32)
    if name == "linear":
        values: tuple[object, ...] = (x, first.bytes, first.scale, bias, bits, 32, -1)
    elif name == "down":
        values = (normal(5, 70, dtype=torch.float32).relu(), down.bytes, down.scale, second, bits, 32, -1)
    else:
        made = quantised_operators.block_arguments(
            (first, bias),
            (down, second),
            activation=Activation(kind="relu"),
            counts=native.new_counts(),
            up=(up, bias.flip(0)) if gated else None,
        )
        values = (x, *made)
    names = [a.name for a in operator(f"quantised_{name}")._schema.arguments]
    return dict(zip(names, values, strict=True))


def attention_step() -> Arguments:
    """Two sequences of width 64, four heads of width 16 that share two, the third token of five that fit."""
    form, types = Format(bits=8, group=32), {"dtype": torch.float32}
    made = [quantise_rows(normal(n, 64, **types) / 8, form) for n in (64, 32, 33, 64)]
    return {
        "x": normal(2, 1, 64, **types), "norms": [normal(64, **types), normal(64, **types).flip(0)], "eps": 1e-3,
        "offset": 1.0, "rounds_first": False,
        "rows": [m.bytes[:n] for m, n in zip(made, (64, 32, 32, 64), strict=True)],
        "scales": [m.scale[:n] for m, n in zip(made, (64, 32, 32, 64), strict=True)],
        "biases": [normal(n, **types) for n in (64, 32, 32)], "out_bias": normal(64, **types), "bits": 8, "group": 32,
        "head_norms": [normal(16, **types), normal(16, **types).flip(0)], "cos": normal(1, 1, 16, **types),
        "sin": normal(1, 1, 16, **types).flip(2), "keys": normal(2, 2, 5, 16, **types),
        "values": normal(2, 2, 5, 16, **types).flip(0), "at": 2, "scale": 0.25, "isa": -1,
    }  # fmt: skip


def layers(dtype: torch.dtype = torch.float32) -> tuple[list[LayerForm], list[Tensor]]:
    """Three decoder layers of width 64: all that one may have, as little as it may, and one with a kept block."""
    attention, types = attention_step(), {"dtype": torch.float32}
    norms, head_norms, biases = ([t.to(dtype) for t in attention[name]] for name in ("norms", "head_norms", "biases"))
    rules = {"eps": 1e-3, "offset": 1.0, "rounds_first": False, "scale": 0.25, "attention": (8, 32)}
    full = LayerForm(
        **rules, block=(4, 32), activation=0, parameters=(0.0, 0.0), head_norms=True, biases=True, out_bias=True,
        gated=True, rectify_up=True, first_bias=True, up_bias=True, down_bias=True,
    )  # fmt: skip
    bare = LayerForm(**rules, block=(8, 32), activation=0, parameters=(0.0, 0.0), every=True)
    four = Format(bits=4, group=32)
    rows = [quantise_rows(normal(96 + k, 64, **types)[:96] / 8, four) for k in range(2)]
    down = quantise_columns(normal(64, 96, **types) / 8, four)
    small = [
        quantise_rows(normal(70, 64, **types) / 8, Format(bits=8, group=32)),
        quantise_columns(normal(64, 70, **types) / 8, Format(bits=8, group=32)),
    ]
    packed = pack(make_block(64, 70, 64, dtype=dtype, gated=True))
    kept = LayerForm(
        **rules, block=(2, 0), activation=0, parameters=(0.0, 0.0), gated=True, kept=True,
        up_bias=packed.up_bias is not None, down_bias=packed.down_bias is not None,
        zero=(packed.zero.left, packed.zero.low, packed.zero.high),
    )  # fmt: skip
    own = (packed.sketch.panels, packed.sketch.certificate, packed.first_rows, packed.up_rows, packed.up_bias,
           packed.down_rows, packed.down_bias)  # fmt: skip
    products = [*attention["rows"], *attention["scales"]]
    first_bias, up_bias, down_bias = (normal(n, dtype=dtype) for n in (96, 95, 64))
    return [full, bare, kept], [
        *norms, *head_norms, *products, *biases, attention["out_bias"].to(dtype), rows[0].bytes, rows[0].scale,
        first_bias, rows[1].bytes, rows[1].scale, torch.cat([up_bias, up_bias[:1]]), down.bytes, down.scale, down_bias,
        *norms, *products, *(t for made in small for t in (made.bytes, made.scale)),
        *norms, *products, *(t for t in own if t is not None),
    ]  # fmt: skip


def decoder_layers(dtype: torch.dtype = torch.float32) -> Arguments:
    forms, weights = layers(dtype)
    step = attention_step()
    x, cos, sin, keys, values = (step[name].to(dtype) for name in ("x", "cos", "sin", "keys", "values"))
    return {
        "x": x, "cos": cos, "sin": sin, "weights": weights,
        "keys": [keys.clone() for _ in forms], "values": [values.clone() for _ in forms],
        "counts": [torch.zeros(4, dtype=torch.int64) for _ in forms],
        "forms": [n for form in forms for n in form.whole_numbers()],
        "numbers": [n for form in forms for n in form.fractions()], "at": 2, "isa": -1,
    }  # fmt: skip


def candidates() -> Arguments:
    sketch = build_sketch(normal(70, 20, dtype=torch.float32), None)
    made = {"x": on_grid(2, 20), "sketch": sketch.panels, "certificate": sketch.certificate}
    return {**made, "rows": 70, "k": 3, "isa": -1}


def _bits() -> Tensor:
    """Which of 70 neurons fire for each of 5 tokens."""
    return definitions.packed_marks(normal(70, 5, dtype=torch.float32).T > 0.5)


def _fired(bits: Tensor) -> int:
    return sum(int(byte).bit_count() for byte in bits.flatten())


def quantising(*, bits: int, by_neuron: bool) -> Arguments:
    """Rows to be quantised in groups of 64, and memory for them, filled with something else."""
    rows, width = 70, 384
    stored = torch.int8 if bits == 8 and by_neuron else torch.uint8
    shape = (rows,) if bits == 8 else (rows, width // 64 if by_neuron else 2, *(() if by_neuron else (16,)))
    return {
        "weight": normal(width, rows, dtype=torch.bfloat16).T,
        "bytes": torch.full((rows, width * bits // 8), 77, dtype=stored),
        "scale": torch.full(shape, 7.0, dtype=torch.float32 if bits == 8 else torch.bfloat16),
        "bits": bits, "group": 64, "by_neuron": by_neuron, "isa": -1,
    }  # fmt: skip


def buckets() -> Arguments:
    """Rows on a grid, so that hashes repeat, and a table that knows half of them."""
    x = torch.randint(0, 3, (40, 3), generator=torch.Generator().manual_seed(0)).double()
    w = torch.zeros(3, 8, dtype=torch.float64)
    w[:, :2] = torch.tensor([[1.0, 2.0], [0.5, -1.0], [-1.0, 1.5]])
    b = torch.full((8,), 0.25, dtype=torch.float64)
    rows = operator("bucket_hash")(x, w, b, 2, 0)
    index, keys, state = table(rows[:20], room=30, entries=64)
    return {"x": x, "w": w, "b": b, "rows": rows, "index": index, "keys": keys, "state": state}


def _of_buckets(*names: str, **others: Callable[[Arguments], object]) -> Callable[[], Arguments]:
    def make() -> Arguments:
        made = buckets()
        made.update({name: value(made) for name, value in others.items()})
        return {name: made[name] for name in (*names, *(n for n in others if n not in names))}

    return make


def _packed(made: Arguments) -> tuple[Tensor, Tensor]:
    load()
    ops = torch.ops.lazyneuron
    return pack_buckets(made["keys"], normal(_count(made), 2 * 4), ops=ops)  # type: ignore[arg-type]


def _count(made: Arguments) -> int:
    return int(made["state"][0])  # type: ignore[index]


def _moments() -> Arguments:
    return {"bits": packed_bits(5, 70), "rows": 70, "degree": 3, "isa": -1}


def _gram() -> Arguments:
    subsets = torch.tensor([[-1, -1], [0, -1], [3, -1], [0, 1], [1, 4], [0, 4]], dtype=torch.int16)
    moments = operator("walsh_moments")(packed_bits(5, 70), 70, 4, -1)
    return {"subsets": subsets, "moments": moments, "n": 5, "isa": -1}


def _memory() -> list[Tensor]:
    """A vector of two pieces, rows that lie apart, and nothing."""
    g = torch.Generator().manual_seed(4)
    bytes_of = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=g) for shape in ((5000,), (7, 300), (0,))]
    return [bytes_of[0], bytes_of[1][:, :259], bytes_of[2]]


CALLS: dict[str, Callable[[], Arguments]] = {
    "sparse_mlp": block,
    "sparse_mlp gated": lambda: block(gated=True),
    "quantised_linear": lambda: quantised("linear", bits=8),
    "quantised_linear int4": lambda: quantised("linear", bits=4),
    "quantised_down": lambda: quantised("down", bits=8),
    "quantised_down int4": lambda: quantised("down", bits=4),
    "quantised_mlp": lambda: quantised("mlp", bits=8),
    "quantised_mlp gated int4": lambda: quantised("mlp", bits=4, gated=True),
    "candidates": candidates,
    "rms_norm": lambda: {
        "x": normal(5, 48, dtype=torch.float32), "weight": normal(48, dtype=torch.float32), "eps": 1e-3, "offset": 1.0,
        "rounds_first": False, "isa": -1,
    },
    "single_query_attention": lambda: {
        "q": normal(2, 6, 1, 16, dtype=torch.float32), "k": normal(2, 3, 9, 16, dtype=torch.float32),
        "v": normal(2, 3, 9, 16, dtype=torch.float32).flip(0), "scale": 0.3, "isa": -1,
    },
    "attention_step": attention_step,
    "decoder_layers": decoder_layers,
    "quantise": lambda: quantising(bits=8, by_neuron=True),
    "quantise int4": lambda: quantising(bits=4, by_neuron=False),
    "quantise down int4": lambda: quantising(bits=4, by_neuron=True),
    "jsrelu": lambda: {"x": normal(3, 17, dtype=torch.float32), "mix": 0.5, "cap": 1.0, "isa": -1},
    "jsrelu_backward": lambda: {
        "gradient": normal(17, 3, dtype=torch.float32).T, "x": normal(3, 17, dtype=torch.float32), "mix": 0.5,
        "cap": 1.0, "isa": -1,
    },
    "mark_fired": lambda: {
        "z": normal(5, 70, dtype=torch.float32), "factor": normal(5, 70, dtype=torch.float32).flip(0), "left": 0.0,
        "low": 0.5, "high": 0.75, "isa": -1,
    },
    "gather_fired": lambda: {"dense": normal(5, 70, dtype=torch.float32), "bits": _bits(), "isa": -1},
    "scatter_fired": lambda: {
        "bits": _bits(), "values": normal(_fired(_bits()), dtype=torch.float32), "width": 70, "isa": -1,
    },
    "fired_rows": lambda: {
        "bits": _bits(), "values": normal(_fired(_bits()), dtype=torch.float32),
        "rows": normal(70, 48, dtype=torch.float32), "isa": -1,
    },
    "fired_columns": lambda: {
        "bits": _bits(), "values": normal(_fired(_bits()), dtype=torch.float32),
        "dense": normal(5, 48, dtype=torch.float32), "neurons": 70, "isa": -1,
    },
    "fired_dots": lambda: {
        "bits": _bits(), "dense": normal(5, 48, dtype=torch.float32), "rows": normal(70, 48, dtype=torch.float32),
        "isa": -1,
    },
    "fingerprint": lambda: {"memory": _memory()},
    "first_change": lambda: {
        "memory": _memory(), "wanted": operator("fingerprint")(_memory()), "turn": 1, "turns": 4, "parts": 2
    },
    "best_isa": dict,
    "fwht_": lambda: {"x": normal(3, 32), "isa": -1},
    "walsh_moments": _moments,
    "walsh_analysis": lambda: {"bits": packed_bits(5, 70), "y": normal(70), "degree": 3, "isa": -1},
    "walsh_synthesis": lambda: {
        "bits": packed_bits(5, 70), "coefficient": normal(26), "rows": 70, "degree": 3, "isa": -1
    },
    "walsh_gram": _gram,
    "hamming_lookup": lambda: {
        "a": packed_bits(6, 70), "b": packed_bits(5, 70, seed=1), "table": normal(129), "isa": -1
    },
    "hamming_sums": lambda: {"rows": packed_bits(9, 70), "y": normal(9), "n": 70, "isa": -1},
    "best_boolean_isa": dict,
    "bucket_hash": _of_buckets("x", "w", "b", hashes=lambda _: 2, shift=lambda _: 1),
    "bucket_find": _of_buckets("rows", "index", "keys", count=_count),
    "bucket_insert": _of_buckets(
        "rows", "index", "keys", "state", slots=lambda _: torch.full((40,), -7), start=lambda _: 3
    ),
    "bucket_rehash": _of_buckets("index", "keys", count=_count),
    "bucket_advise": lambda: {"t": normal(7)},
    "bucket_accumulate": lambda: {
        "sums": torch.zeros(4, 27, dtype=torch.float64), "slots": torch.tensor([0, 3, -1, 3, 1]), "x": normal(5, 4),
        "y": normal(5, 2), "degree": 1,
    },
    "bucket_pack": _of_buckets(
        "keys", count=_count, values=lambda m: normal(_count(m), 3),
        records=lambda m: torch.zeros(2 * _count(m), 8, dtype=torch.int64),
        tags=lambda m: torch.full((2 * _count(m) + 4,), 7, dtype=torch.int16),
    ),
    "bucket_predict": _of_buckets(
        "x", "w", "b", hashes=lambda _: 2, shift=lambda _: 0, records=lambda m: _packed(m)[0],
        tags=lambda m: _packed(m)[1], outputs=lambda _: 2, degree=lambda _: 1,
        y=lambda _: torch.empty(40, 2, dtype=torch.float64), slots=lambda _: torch.empty(40, dtype=torch.int64),
    ),
}  # fmt: skip


def written(op: torch._ops.OpOverload) -> list[str]:
    """The arguments that an operator writes."""
    return [a.name for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write]


def expected(name: str, arguments: Arguments) -> definitions.Written | None:
    """What the definition says about these arguments, or None when there is none."""
    define = getattr(definitions, name.split(maxsplit=1)[0], None)
    return None if define is None else define(*arguments.values())


def run(op: Callable[..., object], name: str, arguments: Arguments) -> definitions.Written:
    """Call an operator, and put what it wrote behind what it returned."""
    returned = op(*arguments.values())
    return (returned, *(arguments[key] for key in written(operator(name))))


def check(got: definitions.Written, wanted: definitions.Written, *, length: int) -> None:
    """Whole numbers are equal, others close: limits for chains of ``length`` sums; None is not compared."""
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        if other is None:
            continue
        if isinstance(other, Tensor) and other.dtype.is_floating_point:
            check_close(one, other, length=length)  # type: ignore[arg-type]
        elif isinstance(other, Tensor):
            assert torch.equal(one, other)  # type: ignore[arg-type]
        else:
            assert one == other
