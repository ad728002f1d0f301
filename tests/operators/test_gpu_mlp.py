"""The Triton kernels against their definition: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.core.errors import ImplUnavailable, ShapeError
from lazyneuron.ops.gpu_mlp import available, operators, reference
from lazyneuron.ops.gpu_mlp.layer import KEPT, Layer
from lazyneuron.ops.gpu_mlp.tiles import Tiles
from lazyneuron.ops.quantised.format import GROUPS, Format
from tests.accelerate.comparison import check_close
from tests.accelerate.test_sparse_mlp import ACTIVATIONS
from tests.gpu import DEVICE, needs_triton, quiet
from tests.operators.gpu_blocks import SMALL, Block, inputs, make

pytestmark = [needs_triton, quiet]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FORMS = (None, Format(bits=8), Format(bits=4, group=32))
LENGTH = 160 + 70


def magnitude(block: Block, x: Tensor) -> Tensor:
    """The sums of the second layer with every term positive: what their rounding is relative to."""
    down = block.down
    if block.form is None:
        rows = down.rows.double().abs()
    else:
        identity = torch.eye(len(down.rows), dtype=torch.float64, device=x.device)
        rows = reference.down(identity, dataclasses.replace(down, bias=None), block.form).abs()
    return block.hidden(x).double().abs() @ rows


def check(block: Block, x: Tensor, **others: object) -> None:
    check_close(block.run(x, **others), block.wanted(x), length=LENGTH, magnitude=magnitude(block, x))


@pytest.mark.parametrize("tokens", [1, 5, 17])
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_block_is_its_definition(dtype, form, tokens):
    check(make(dtype=dtype, form=form, gated=tokens != 17), inputs(tokens, 160, dtype))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_every_activation(activation):
    block = make(activation=activation, shift=-0.3, d_hidden=40, gated=True)
    for tokens in (1, 3):
        check(block, inputs(tokens, 160))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_activations_of_16_bits(activation, dtype):
    """Rows of one number, so that pre-activations are what they are: all near zero and some far out."""
    z = torch.cat([torch.linspace(-4, 4, 59), torch.tensor([-100.0, -30, 30, 200, 0])]).to(dtype).to(DEVICE)
    first = Layer(rows=z[:, None].contiguous())
    down = Layer(rows=torch.eye(64, dtype=dtype, device=DEVICE))
    block = Block(first=first, up=None, down=down, activation=activation, form=None)
    x = torch.ones(1, 1, dtype=dtype, device=DEVICE)
    got, wanted = block.run(x), block.wanted(x)
    step = torch.finfo(dtype).eps * wanted.abs().double()
    assert ((got.double() - wanted.double()).abs() <= step).all()
    assert torch.equal(got == 0, wanted == 0)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("shift", [-50.0, 50.0])
def test_none_or_all_fire(form, shift):
    block = make(form=form, shift=shift, gated=True)
    x, counts = inputs(3, 160), operators.new_counts(DEVICE)
    check(block, x, counts=counts)
    assert counts.tolist() == [70 * (shift > 0), 210 * (shift > 0), 3, 1]
    if shift < 0:
        assert torch.equal(block.run(x), block.down.bias.expand(3, 96))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("width", [128, 640, 1920])
def test_rows_of_four_bits_of_every_group_and_tail(group, width):
    """Widths whose blocks halve towards the end, and one that ends within a block."""
    form = Format(bits=4, group=group)
    block = make(width, 20, 128, form=form)
    for tokens in (1, 2):
        x = inputs(tokens, width)
        check_close(block.run(x), block.wanted(x), length=width, magnitude=magnitude(block, x))


def test_only_the_rows_of_what_fires_are_read():
    """Rows of silent neurons hold NaN, which would show in every output."""
    block = make(gated=True)
    for tokens in (1, 3):
        x = inputs(tokens, 160)
        silent = (reference.linear(x, block.first) <= 0).all(0)
        assert 10 < silent.sum() < 70
        wanted = block.wanted(x)
        poisoned = Layer(rows=block.up.rows.clone(), bias=block.up.bias)
        last = Layer(rows=block.down.rows.clone(), bias=block.down.bias)
        poisoned.rows[silent], last.rows[silent] = torch.nan, torch.nan
        check_close(dataclasses.replace(block, up=poisoned, down=last).run(x), wanted, length=LENGTH)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("gated", [False, True])
def test_what_is_not_finite_comes_out_as_in_dense(bad, gated):
    block = make(gated=gated)
    x = inputs(3, 160)
    x[1, 7] = bad
    for rows in (x, x[1:2]):
        got, wanted = block.run(rows), block.wanted(rows)
        assert torch.equal(got.isnan(), wanted.isnan()) and torch.equal(got.isinf(), wanted.isinf())
    assert block.run(x)[[0, 2]].isfinite().all()


def test_an_overflow_behind_a_silent_gate_comes_out_as_in_dense():
    """Up gives infinity where the gate gives 0: their product is NaN, which a skipped row would hide."""
    one = torch.ones(1, 1, dtype=torch.float16, device=DEVICE)
    block = Block(
        first=Layer(rows=-one), up=Layer(rows=one * 300), down=Layer(rows=one), activation=Activation("relu"), form=None
    )
    for value, over in ((1.0, False), (300.0, True)):
        got = block.run(one * value, limit=(65504.0 / 300) ** 2)
        assert bool(got.isnan()) == over == bool(block.wanted(one * value).isnan())


@pytest.mark.parametrize("form", FORMS[:2], ids=str)
@pytest.mark.parametrize("tokens", [1, 3])
def test_every_cut_gives_the_same(form, tokens):
    block, x = make(form=form, gated=True), inputs(tokens, 160)
    for segments, columns in itertools.product((1, 3), (32, 128)):
        check(block, x, tiles=Tiles(segments=segments, columns=columns, neurons=32, inputs=32, rows=16))
    check(block, x, tiles=None)
    assert torch.equal(block.run(x), block.run(x))


def test_strides_and_axes_do_not_matter():
    block, x = make(gated=True), inputs(6, 160)
    wanted = block.run(x)
    assert torch.equal(block.run(x.reshape(2, 3, 160)), wanted.reshape(2, 3, 96))
    assert torch.equal(block.run(x.t().contiguous().t()), wanted)
    assert torch.equal(block.run(x[1].expand(4, 160)), block.run(x[1].repeat(4, 1)))
    assert torch.equal(block.run(torch.cat([x, x], 1)[:, :160]), wanted)
    assert block.run(x[:0]).shape == (0, 96)
    apart = Layer(rows=torch.cat([block.first.rows] * 2, 1)[:, :160], bias=block.first.bias)
    assert torch.equal(dataclasses.replace(block, first=apart).run(x), wanted)


def test_counts_are_of_what_happened():
    block, counts = make(), operators.new_counts(DEVICE)
    x = inputs(20, 160)
    fires = block.hidden(x) != 0
    block.run(x, counts=counts)
    block.run(x[:1], counts=counts)
    union = fires[:16].any(0).sum() + fires[16:].any(0).sum() + fires[0].sum()
    assert counts.tolist() == [int(union), int(fires.sum() + fires[0].sum()), 21, 2]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("tokens", [1, 18])
def test_layers_one_by_one(form, tokens):
    block, x = make(form=form), inputs(tokens, 160)
    bits, group = (KEPT, 32) if form is None else (form.bits, form.group)
    first, down = block.first, block.down
    got = operators.op("linear")(x, first.rows, first.scale, first.bias, bits, group)
    check_close(got, reference.linear(x, first, form).to(x.dtype), length=160)
    hidden = block.hidden(x)
    got = operators.op("down")(hidden, down.rows, down.scale, down.bias, bits, group)
    check_close(got, block.wanted(x), length=70, magnitude=magnitude(block, x))


def test_rows_of_one_number():
    """A layer of one output, transposed: one number a row, whatever its strides say."""
    down = Layer(rows=torch.randn(1, 40, device=DEVICE).t())
    assert down.rows.stride(1) != 1
    block = dataclasses.replace(make(d_hidden=40), down=down)
    check(block, inputs(3, 160))


def test_more_tickets_than_are_cleared_at_once():
    """A segment that finds a ticket of another call never finishes its columns."""
    block, x = make(16, 32, 130 * 16), inputs(1, 16)
    tiles = Tiles(columns=16, segments=2, neurons=16, inputs=16, rows=16)
    check(block, x, tiles=tiles)


SHAPES = st.sampled_from([1, 2, 31, 33, 64, 130])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_block(data: st.DataObject) -> None:
    _fuzz(data)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_block_at_length(data: st.DataObject) -> None:
    _fuzz(data)


def _fuzz(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from([*FORMS, Format(bits=4, group=128)]))
    step = form.group if form is not None and form.bits == 4 else 1
    d_in, d_hidden, d_out = data.draw(SHAPES), data.draw(SHAPES), data.draw(SHAPES)
    activation = data.draw(st.sampled_from(ACTIVATIONS))
    smooth = activation.kind.startswith("thresholded")  # a threshold of 16 bits may fall either way at its edge
    dtype = torch.float32 if smooth else data.draw(st.sampled_from(DTYPES))
    block = make(
        -(-d_in // step) * step, d_hidden, -(-d_out // step) * step, dtype=dtype, form=form,
        gated=data.draw(st.booleans()), rectify_up=data.draw(st.booleans()), bias=data.draw(st.booleans()),
        shift=data.draw(st.sampled_from([-30.0, -1.5, 0.0, 30.0])), activation=activation,
    )  # fmt: skip
    if block.up is None:
        block = dataclasses.replace(block, rectify_up=False)
    tokens = data.draw(st.sampled_from([0, 1, 2, 16, 17, 33]))
    x = inputs(tokens, -(-d_in // step) * step, dtype, seed=tokens)
    tiles = data.draw(st.sampled_from([None, SMALL, Tiles(segments=5, neurons=32, rows=16, columns=64)]))
    check_close(
        block.run(x, tiles=tiles), block.wanted(x), length=d_in + d_hidden + step, magnitude=magnitude(block, x)
    )


def _dropped(block: Block, x: Tensor) -> Block:
    """The loudest neuron is forgotten."""
    rows = block.down.rows.clone()
    rows[block.hidden(x).abs().sum(0).argmax()] = 0
    return dataclasses.replace(block, down=dataclasses.replace(block.down, rows=rows))


def _off_by_one(block: Block, x: Tensor) -> Block:
    return dataclasses.replace(block, down=dataclasses.replace(block.down, rows=block.down.rows.roll(1, 0)))


def _wrong_function(block: Block, x: Tensor) -> Block:
    return dataclasses.replace(block, activation=Activation("squared_relu"))


def _no_bias(block: Block, x: Tensor) -> Block:
    return dataclasses.replace(block, first=dataclasses.replace(block.first, bias=None))


def _scale_of_another(block: Block, x: Tensor) -> Block:
    assert block.first.scale is not None
    return dataclasses.replace(block, first=dataclasses.replace(block.first, scale=block.first.scale.roll(1, 0)))


@pytest.mark.parametrize("fault", [_dropped, _off_by_one, _wrong_function, _no_bias, _scale_of_another])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_planted_fault_is_noticed(fault: Callable[[Block, Tensor], Block], form: Format | None) -> None:
    if form is None and fault is _scale_of_another:
        pytest.skip("weights that are kept have no scales")
    block, x = make(form=form), inputs(2, 160)
    check(block, x)
    with pytest.raises(AssertionError):
        check_close(fault(block, x).run(x), block.wanted(x), length=LENGTH, magnitude=magnitude(block, x))


def test_sums_of_16_bits_are_noticed():
    block, x = make(), inputs(2, 160)
    narrow = block.wanted(x.bfloat16().float())
    with pytest.raises(AssertionError):
        check_close(narrow, block.wanted(x), length=LENGTH, magnitude=magnitude(block, x))


@pytest.mark.parametrize("name", ["mlp", "linear", "down"])
def test_the_fake_is_like_the_result(name):
    block, x = make(form=FORMS[2]), inputs(3, 160)
    if name == "mlp":
        made = operators.block_arguments(
            block.first, block.down, activation=block.activation, counts=operators.new_counts(DEVICE), form=block.form
        )
        arguments = (x, *made)
    else:
        layer = block.first if name == "linear" else block.down
        arguments = (x if name == "linear" else block.hidden(x), layer.rows, layer.scale, layer.bias, 4, 32)
    operators.op(name)
    op = getattr(torch.ops.lazyneuron, f"gpu_{name}").default
    torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_faketensor"))


WRONG: dict[str, tuple[Callable[[Block], Block], str]] = {
    "rows": (lambda b: dataclasses.replace(b, first=dataclasses.replace(b.first, rows=b.first.rows[:, :-1])), "Rows"),
    "strides": (
        lambda b: dataclasses.replace(b, first=dataclasses.replace(b.first, rows=b.first.rows.t().contiguous().t())),
        "Rows of weights",
    ),
    "dtype": (lambda b: dataclasses.replace(b, down=dataclasses.replace(b.down, rows=b.down.rows.double())), "Rows"),
    "neurons": (lambda b: dataclasses.replace(b, down=Layer(rows=b.down.rows[1:], bias=b.down.bias)), "Rows"),
    "bias": (lambda b: dataclasses.replace(b, first=Layer(rows=b.first.rows, bias=b.first.bias[1:])), "A bias is 70"),
    "up": (lambda b: dataclasses.replace(b, up=Layer(rows=b.first.rows[1:])), "as many neurons, got 70 and 69"),
    "axes": (lambda b: dataclasses.replace(b, first=Layer(rows=b.first.rows[0, 0])), "are a matrix"),
    "axes of down": (lambda b: dataclasses.replace(b, down=Layer(rows=b.down.rows[0])), "are a matrix"),
    "format": (lambda b: dataclasses.replace(b, form=Format(bits=8)), "torch.uint8 of shape"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what):
    change, match = WRONG[what]
    with pytest.raises(ShapeError, match=match):
        change(make()).run(inputs(2, 160))


def _other_strides(t: Tensor) -> list[Tensor]:
    """The same numbers, laid out otherwise."""
    found = [torch.stack([t, t], -1)[..., 0], torch.cat([t, t], -1)[..., : t.shape[-1]]]
    if t.ndim == 2:
        found.append(t.t().contiguous().t())
    lying = [777 if n == 1 else stride for n, stride in zip(t.shape, t.stride(), strict=True)]
    return [*found, torch.as_strided(t.clone(), t.shape, lying)]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("shape", [(160, 70, 128), (160, 1, 128), (160, 2, 128), (1, 5, 64), (1, 1, 1)])
def test_other_strides_are_answered_rightly_or_refused(shape, form):
    d_in, hidden, d_out = shape
    if form is not None and (d_in == 1 or d_out % 64):
        pytest.skip("quantised rows have at least a group")
    block, x = make(d_in, hidden, d_out, form=form), inputs(2, d_in)
    wanted, refused = block.run(x), 0
    for layer in ("first", "down"):
        for part in ("rows", "scale", "bias"):
            held = getattr(getattr(block, layer), part)
            for other in [] if held is None else _other_strides(held):
                changed = dataclasses.replace(getattr(block, layer), **{part: other})
                try:
                    assert torch.equal(dataclasses.replace(block, **{layer: changed}).run(x), wanted)
                except ShapeError:
                    refused += 1
    for other in _other_strides(x):
        assert torch.equal(block.run(other), wanted)
    assert refused or shape == (1, 1, 1)


def test_wrong_inputs_scales_and_counts():
    block = make(form=Format(bits=8))
    for x, match in (
        (inputs(2, 160).double(), "got torch.float64"),
        (inputs(2, 160)[..., :0], "axis of features"),
        (inputs(2, 200), "Rows of weights"),
        (torch.ones((), device=DEVICE), "axis of features"),
    ):
        with pytest.raises(ShapeError, match=match):
            block.run(x)
    with pytest.raises(ShapeError, match="Scales are"):
        dataclasses.replace(block, first=dataclasses.replace(block.first, scale=None)).run(inputs(2, 160))
    with pytest.raises(ShapeError, match="Counts are 4"):
        block.run(inputs(2, 160), counts=torch.zeros(3, dtype=torch.int64, device=DEVICE))
    with pytest.raises(ImplUnavailable, match="no kernel for the device 'meta'"):
        operators.mlp(inputs(1, 160).to("meta"), *[None] * 18)  # type: ignore[arg-type]


def test_why_not(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert "interpreter" in str(available.why_not(torch.device("cpu")))
    monkeypatch.setattr(available.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'lazyneuron[gpu]'" in str(available.why_not(torch.device("cuda")))
    monkeypatch.undo()
    available._why_not_this.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla T4")
    assert available.why_not(torch.device("cuda")) == "The kernels need compute capability 8.0, and Tesla T4 has 7.5."
    available._why_not_this.cache_clear()
