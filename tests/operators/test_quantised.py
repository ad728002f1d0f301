"""Quantised layers and blocks: the bytes mean what the format says, and the kernels compute with that meaning."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lazyneuron.blocks.activation import Activation
from lazyneuron.core.errors import AssumptionError, ConfigError, ShapeError
from lazyneuron.core.memory import HUGE_PAGE
from lazyneuron.ops.quantised import operators, quantise, reference
from lazyneuron.ops.quantised.format import GROUPS, Columns, Format, Rows, quantise_columns, quantise_rows
from lazyneuron.ops.quantised.layout import laid_out
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS
from tests.accelerate.comparison import check_close
from tests.kernels import LEVELS, needs_kernels
from tests.operators.quantised import block, decode_columns, decode_rows, on_grid

FORMATS = [Format(bits=8), *(Format(bits=4, group=group) for group in GROUPS)]
WIDTHS = [128, 384, 1920]
RELU = Activation(kind="relu")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_rows_decode_by_the_layout_of_the_kernels(form, width):
    rows = quantise_rows(normal(7, width), form)
    wanted = decode_rows(rows.bytes, rows.scale, width=width, bits=form.bits, group=form.group)
    assert torch.equal(rows.dequantised(torch.float64), wanted)
    error = (wanted - normal(7, width)).norm() / normal(7, width).norm()
    assert error < (0.01 if form.bits == 8 else 0.12)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_columns_decode_by_the_layout_of_the_kernels(form):
    weight = normal(256, 9)
    columns = quantise_columns(weight, form)
    wanted = decode_columns(columns.bytes, columns.scale, bits=form.bits, group=form.group)
    assert torch.equal(columns.dequantised(torch.float64), wanted)
    assert (wanted - weight.T).norm() / weight.norm() < (0.01 if form.bits == 8 else 0.12)


def test_eight_bits_are_the_nearest_of_255_levels():
    weight = torch.tensor([[-127.0, 0.4, 0.6, 63.5, 127.0] + [0.0] * 59])
    rows = quantise_rows(weight, Format(bits=8))
    assert rows.dequantised()[0, :5].tolist() == [-127, 0, 1, 64, 127]  # ties to even


def test_a_group_whose_largest_number_is_negative_uses_all_sixteen_levels():
    group = torch.linspace(-8, 7, 32)[None]
    assert (quantise_rows(group, Format(bits=4)).dequantised() - group).abs().max() <= 0.5
    assert (quantise_rows(-group, Format(bits=4)).dequantised() + group).abs().max() <= 0.5


@pytest.mark.parametrize("form", FORMATS[:2], ids=str)
def test_zeros_and_single_numbers_survive(form):
    weight = torch.zeros(3, 128)
    weight[1, 5], weight[2, 127] = 3.0, -2.0
    found = quantise_rows(weight, form).dequantised()
    assert torch.equal(found != 0, weight != 0)
    assert torch.allclose(found, weight, rtol=2.0**-8)


def test_what_no_format_holds_is_refused():
    with pytest.raises(ShapeError, match="groups of 64 do not divide"):
        quantise_rows(normal(2, 96), Format(bits=4, group=64))
    with pytest.raises(AssumptionError, match="NaN or infinity"):
        quantise_columns(torch.full((32, 3), torch.inf), Format(bits=4))
    with pytest.raises(ConfigError, match="4 or 8 bits, got 3"):
        Format(bits=3)
    with pytest.raises(ConfigError, match="32, 64, 128"):
        Format(bits=4, group=48)


def awkward(rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows of very different size, zeros, and groups whose largest magnitude comes with both signs."""
    weight = normal(rows, width) * torch.rand(rows, 1, generator=torch.Generator().manual_seed(1)) ** 12
    weight[0, : width // 2] = 0
    weight[-1] = 0
    flat = weight.view(-1)
    flat[1::37][: len(flat[::37])] = -flat[::37][: len(flat[1::37])] * 3
    flat[::37] *= 3
    return weight.to(dtype)


@needs_kernels
@pytest.mark.parametrize("isa", [None, -1, *LEVELS])
@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_native_bytes_are_those_of_the_definition(form, dtype, isa):
    for rows, width in ((1, 128), (70, 384), (65, 1920), (3, 2176), (130, 256)):
        weight = awkward(rows, width, dtype)
        wide = torch.cat([weight, weight], 1)[:, :width]
        for given in (weight, weight.T.contiguous().T, wide, weight.flip(0)):
            for native, plain in (
                (quantise.quantise_rows(given, form), quantise_rows(given, form)),
                (quantise.quantise_columns(given.T, form), quantise_columns(given.T, form)),
            ):
                data, scale = native.bytes, native.scale
                if isa is not None and 1 in given.stride():
                    data, scale = torch.empty_like(data), torch.empty_like(scale)
                    by_neuron = not hasattr(native, "width")
                    arguments = (given, data, scale, form.bits, form.group, by_neuron, isa)
                    assert torch.ops.lazyneuron.quantise(*arguments) == 0
                assert torch.equal(data, plain.bytes) and torch.equal(scale, plain.scale)


@needs_kernels
@pytest.mark.parametrize("form", FORMATS[:2], ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_natively_too_what_no_format_holds_is_refused(form, value):
    weight = normal(70, 256)
    weight[69, 255] = value
    with pytest.raises(AssumptionError, match="the head holds NaN or infinity"):
        quantise.quantise_rows(weight, form, what="the head")
    with pytest.raises(AssumptionError, match="NaN or infinity"):
        quantise.quantise_columns(weight.T, form)
    with pytest.raises(ShapeError, match="groups of 64 do not divide"):
        quantise.quantise_columns(normal(96, 4), Format(bits=4, group=64))


@needs_kernels
@pytest.mark.parametrize("isa", (-1, *LEVELS))
@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_linear_layer_is_its_definition(form, dtype, isa):
    for width, rows, tokens in ((128, 1, 1), (384, 70, 2), (1920, 67, 3), (256, 5, 67)):
        quantised = quantise_rows(normal(rows, width), form)
        x, bias = on_grid(tokens, width, dtype=dtype), normal(rows, seed=1).to(dtype)
        got = operators.linear(x, quantised, bias, isa=isa)
        check_close(got, reference.linear(x, quantised, bias).to(dtype), length=width)


@needs_kernels
@pytest.mark.parametrize("isa", (-1, *LEVELS))
@pytest.mark.parametrize("form", FORMATS[:2], ids=str)
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_a_block_is_its_definition(form, gated, isa):
    first, up, down = block(256, 70, 96, bits=form.bits)
    bias, up_bias, down_bias = normal(70, seed=2) - 1, normal(70, seed=3), normal(96, seed=4)
    for tokens in (0, 1, 2, 5, 66, 300, 1100):
        x, counts = on_grid(tokens, 256), torch.zeros(4, dtype=torch.int64)
        second = (up, up_bias) if gated else None
        arguments = operators.block_arguments(
            (first, bias), (down, down_bias), activation=RELU, counts=counts, up=second, isa=isa
        )
        wanted = reference.mlp(x, (first, bias), (down, down_bias), activation=torch.relu, up=second)
        check_close(operators.mlp(x, *arguments), wanted.float(), length=512)
        fires = int((reference.linear(x, first, bias) > 0).sum())
        assert abs(int(counts[1]) - fires) <= 2 + fires // 1000  # a sum of about 0 may round to either side
        assert counts[2:].tolist() == [tokens, 1]


@needs_kernels
@pytest.mark.parametrize("form", FORMATS[:2], ids=str)
@pytest.mark.parametrize("kind", KERNEL_ACTIVATIONS)
@pytest.mark.parametrize("rectify_up", [False, True])
def test_every_activation(form, kind, rectify_up):
    parameters = {"jsrelu": (0.5, 1.0), "fatrelu": (0.3,), "offset_gelu": (-0.2, -0.05)}
    own = (0.1,) if kind.startswith("thresholded") else parameters.get(kind, ())
    activation = Activation(kind=kind, parameters=own)
    first, up, down = block(128, 130, 64, bits=form.bits)
    x, counts = on_grid(9, 128), torch.zeros(4, dtype=torch.int64)
    arguments = operators.block_arguments(
        (first, None), (down, None), activation=activation, counts=counts, up=(up, None), rectify_up=rectify_up
    )
    wanted = reference.mlp(x, (first, None), (down, None), activation=activation, up=(up, None), rectify_up=rectify_up)
    check_close(operators.mlp(x, *arguments), wanted.float(), length=1024)


@needs_kernels
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_skipping_changes_no_bit_and_no_token_changes_another(form):
    first, up, down = block(256, 600, 128, bits=form.bits, group=form.group)  # more than one segment of neurons
    x, counts = normal(150, 256), torch.zeros(4, dtype=torch.int64)

    def run(tokens: torch.Tensor, *, every: bool = False) -> torch.Tensor:
        return operators.mlp(
            tokens,
            *operators.block_arguments(
                (first, normal(600) - 2), (down, None), activation=RELU, counts=counts, up=(up, None), every=every
            ),
        )

    sparse = run(x)
    assert torch.equal(sparse, run(x, every=True))
    assert torch.equal(sparse, torch.cat([run(x[k : k + 1]) for k in range(150)]))
    assert torch.equal(sparse[:5], run(x[:5]))


@needs_kernels
@pytest.mark.parametrize("form", FORMATS[:2], ids=str)
@pytest.mark.parametrize("tokens", [1, 7, 130])
def test_down_alone_takes_given_activations(form, tokens):
    *_, down = block(128, 70, 96, bits=form.bits)
    hidden = normal(tokens, 70).relu()
    bias = normal(96, seed=1)
    check_close(operators.down(hidden, down, bias), reference.down(hidden, down, bias).float(), length=70)


@needs_kernels
@pytest.mark.parametrize("isa", (-1, *LEVELS))
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("tokens", [5, 9, 70])
@pytest.mark.parametrize("d_out", [40, 208, 333])
def test_however_many_fire_a_sum_of_int8_down_has_the_same_bits(d_out, tokens, share, isa):
    # rows that most tokens want are multiplied as a matrix, those that few want one after the other
    columns = quantise_columns(normal(d_out, 300, seed=1), Format(bits=8))
    hidden = normal(tokens, 300, seed=2) * (torch.rand(tokens, 300, generator=torch.Generator().manual_seed(3)) < share)
    hidden[:, 64:128] *= torch.rand(tokens, 1, generator=torch.Generator().manual_seed(4)) < 0.1
    hidden[1, 7], hidden[2, 9] = torch.inf, torch.nan
    together = operators.down(hidden, columns, isa=isa)
    alone = torch.cat([operators.down(hidden[t : t + 1], columns, isa=isa) for t in range(tokens)])
    assert torch.equal(together.nan_to_num(nan=7.0), alone.nan_to_num(nan=7.0))
    assert together[0].isfinite().all() and not together[2].isfinite().any()


@needs_kernels
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("tokens", [1, 3, 70])
def test_no_level_and_no_order_of_neurons_changes_a_bit_of_int4_down(group, tokens):
    for d_hidden, d_out in ((1, group), (70, 3 * group), (256, 128), (600, 1152)):
        *_, down = block(128, d_hidden, d_out, bits=4, group=group)
        hidden = normal(tokens, d_hidden).relu() * 10 ** normal(1, d_hidden, seed=1)
        got = operators.down(hidden, down)
        check_close(got, reference.down(hidden, down).float(), length=d_hidden)
        for isa in LEVELS:
            assert torch.equal(got, operators.down(hidden, down, isa=isa))
        order = torch.cat([start + torch.randperm(min(256, d_hidden - start)) for start in range(0, d_hidden, 256)])
        moved = dataclasses.replace(down, bytes=down.bytes[order], scale=down.scale[order])
        assert torch.equal(got, operators.down(hidden[:, order], moved))
        fires = (hidden != 0).any(0)  # what is zero is no part of a segment
        fewer = torch.where(fires[:, None], down.bytes, 0)
        assert torch.equal(got, operators.down(hidden, dataclasses.replace(down, bytes=fewer)))


@needs_kernels
@pytest.mark.parametrize("isa", (-1, *LEVELS))
def test_hidden_activations_of_any_size_before_int4_down(isa):
    *_, down = block(128, 300, 160, bits=4)
    hidden = normal(6, 300).relu()
    hidden[0] *= 1e-36
    hidden[1] *= 1e36
    hidden[2, ::7] *= 1e-30
    hidden[3, 5], hidden[4, 299] = torch.inf, torch.nan
    hidden[5] = 0
    got, wanted = operators.down(hidden, down, isa=isa), reference.down(hidden, down)
    for row, factor in ((0, 1e36), (1, 1e-36), (2, 1.0)):
        check_close(got[row] * factor, (wanted[row] * factor).float(), length=300)
    # the products that are not finite; the others of the same token are as ever
    assert torch.equal(got[3:5].isnan(), wanted[3:5].isnan()) and torch.equal(got[3:5].isinf(), wanted[3:5].isinf())
    torch.testing.assert_close(got[3:5], wanted[3:5].float(), rtol=1e-4, atol=1e-4, equal_nan=True)
    assert not got[5].any()


@needs_kernels
def test_a_neuron_far_larger_than_its_segment_costs_the_others_few_bits():
    """The step of a segment's grid is 2^-29 of its largest product."""
    *_, down = block(128, 256, 128, bits=4)
    hidden = normal(1, 256).relu()
    hidden[0, 17] = 2.0**14
    data = down.bytes.clone()
    data[17] = 0x88  # its weights are zero: what is left is what the others add
    alone = dataclasses.replace(down, bytes=data)
    got, wanted = operators.down(hidden, alone).double(), reference.down(hidden, alone)
    step = 2.0**14 * float(down.scale[17].float().abs().max()) * 2.0**-29
    assert float((got - wanted).abs().max()) <= 8 * 256 * step
    assert float((got - wanted).norm() / wanted.norm()) < 1e-3


@needs_kernels
@pytest.mark.parametrize("form", FORMATS[:2], ids=str)
def test_inputs_that_no_grid_holds(form):
    first, up, down = block(128, 70, 64, bits=form.bits)
    infinite = normal(128)
    infinite[3] = torch.inf
    rows = torch.stack(
        [normal(128) * 1e-38, normal(128) * 1e33, torch.full((128,), torch.nan), infinite, torch.zeros(128)]
    )
    got, wanted = operators.linear(rows, first), reference.linear(rows, first)
    check_close(got[0] * 1e38, (wanted[0] * 1e38).float(), length=128)
    check_close(got[1] / 1e33, (wanted[1] / 1e33).float(), length=128)
    torch.testing.assert_close(got[2:4], wanted[2:4].float(), rtol=0, atol=0, equal_nan=True)
    assert not got[4].any()
    counts = torch.zeros(4, dtype=torch.int64)
    arguments = operators.block_arguments((first, None), (down, None), activation=RELU, counts=counts, up=(up, None))
    block_of = operators.mlp(rows, *arguments)
    assert block_of[2:4].isnan().all() and not block_of[4].any()
    assert torch.equal(block_of[4:], operators.mlp(rows[4:], *arguments))


@needs_kernels
def test_a_planted_fault_in_the_layout_is_noticed():
    """Two weights of one row change places: the comparison must see it."""
    rows = quantise_rows(normal(4, 256), Format(bits=4))
    x = on_grid(3, 256)
    wanted = reference.linear(x, rows)
    swapped = rows.bytes.clone()
    swapped[2, :2] = swapped[2, [1, 0]]
    assert not torch.equal(swapped, rows.bytes)
    faulty = quantise_rows(normal(4, 256), Format(bits=4))
    faulty.bytes.copy_(swapped)
    with pytest.raises(AssertionError):
        check_close(operators.linear(x, faulty), wanted.float(), length=256)


@needs_kernels
@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_no_sum_of_the_largest_numbers_leaves_its_integers(form, isa, tokens):
    for width in (2048, 8192, 32768):
        weight = torch.ones(9, width)
        if form.bits == 4:  # what is largest is -8 of its scale, and +7 what is stored as 15
            weight[:, :: form.group] = -8 / 7
        rows = quantise_rows(weight, form)
        assert bool((rows.bytes == 255).any())
        x = torch.cat([torch.ones(1, width), -torch.ones(1, width)]).repeat(4, 1)[:tokens]
        wanted = reference.linear(x, rows)
        assert float(wanted.abs().min()) > 0.9 * width
        assert torch.allclose(operators.linear(x, rows, isa=isa).double(), wanted, rtol=1e-6)


@needs_kernels
@pytest.mark.parametrize("isa", (-1, *LEVELS))
@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_scales_behind_their_rows_change_no_bit(form, isa, tokens):
    def beside(rows: Rows | Columns) -> Rows | Columns:
        data, scale = laid_out(rows.bytes, rows.scale)
        assert torch.equal(data, rows.bytes) and torch.equal(scale, rows.scale)
        assert form.bits == 8 or (not data.is_contiguous() and scale.data_ptr() == data.data_ptr() + data.shape[1])
        return dataclasses.replace(rows, bytes=data, scale=scale)

    def run(first: Rows, up: Rows, down: Columns) -> torch.Tensor:
        counts = torch.zeros(4, dtype=torch.int64)
        arguments = operators.block_arguments(
            (first, bias), (down, None), activation=RELU, counts=counts, up=(up, None), isa=isa
        )
        return operators.mlp(x, *arguments)

    parts = block(384, 150, 256, bits=form.bits, group=form.group)
    x, bias = normal(tokens, 384), normal(150) - 1
    placed = [beside(part) for part in parts]
    assert torch.equal(run(*parts), run(*placed))
    assert torch.equal(operators.linear(x, parts[0], isa=isa), operators.linear(x, placed[0], isa=isa))
    hidden = normal(tokens, 150).relu()
    assert torch.equal(operators.down(hidden, parts[2], isa=isa), operators.down(hidden, placed[2], isa=isa))


def test_large_matrices_begin_at_a_large_page():
    data, scale = laid_out(torch.ones(3000, 1024, dtype=torch.uint8), torch.ones(3000, 4, 16).bfloat16())
    assert data.data_ptr() % HUGE_PAGE == 0 and data.stride() == (1024 + 128, 1)
    assert bool((data == 1).all()) and bool((scale == 1).all())
