"""The operator in OpenVINO: within the bounds, the bits of torch's, dynamic shapes, sentences for what does not fit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lazyneuron.blocks import MLPBlock
from lazyneuron.blocks.activation import Activation
from lazyneuron.export.openvino.choice import alone
from lazyneuron.export.openvino.convert import core_with
from lazyneuron.export.openvino.layout import PackedOperator, on_copies, packed_operator, sealed
from lazyneuron.ops.native.load import status
from lazyneuron.ops.quantised.format import Format
from lazyneuron.ops.quantised.quantise import quantise_columns, quantise_rows
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS
from tests.accelerate.blocks import make_block
from tests.accelerate.comparison import check_close
from tests.export import fuzz
from tests.export.openvino import EXACT, evaluate, library, needs_openvino, run, run_packed

pytestmark = needs_openvino
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
PARAMETERS = {"jsrelu": (0.5, 2.0), "fatrelu": (0.3,), "offset_gelu": (-0.2, -0.05)}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def block_with(kind: str, **options: Any) -> MLPBlock:
    parameters = (0.1,) if kind.startswith("thresholded") else PARAMETERS.get(kind, ())
    return make_block(100, 300, 70, activation=Activation(kind, parameters), **options)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("kind", KERNEL_ACTIVATIONS)
def test_every_activation_gives_the_dense_block(kind: str, gated: bool) -> None:
    block = block_with(kind, gated=gated)
    x = torch.randn(33, 100, generator=torch.Generator().manual_seed(1))
    check_close(run(block, x), block.forward(x), length=400)


def test_dynamic_shapes_on_one_compiled_model() -> None:
    block = make_block(64, 256, 32)
    compiled = core_with(library()).compile_model(
        alone(packed_operator(block, "keep"), library(), axes=3), "CPU", EXACT
    )
    for shape in [(1, 1), (2, 7), (3, 130), (0, 4), (1, 400)]:
        x = torch.randn(*shape, 64, generator=torch.Generator().manual_seed(2))
        got = evaluate(compiled, x)
        assert got.shape == (*shape, 32)
        check_close(got, block.forward(x), length=256)


def test_bf16_rows_are_those_of_the_block_in_bf16() -> None:
    block = make_block(96, 200, 64)
    x = torch.randn(40, 96, generator=torch.Generator().manual_seed(3))
    got = run(block, x, "bf16")
    half = on_copies(block, torch.bfloat16)
    check_close(got.bfloat16(), half.forward(x.bfloat16()), length=200, roundings=1)
    assert not torch.equal(got, run(block, x))


def int8_definition(block: MLPBlock, x: Tensor) -> Tensor:
    """A plain block in int8, in float64: 8 bits a weight, a scale a row, and a grid for a token's activations."""
    form = Format(bits=8)
    first = quantise_rows(block.up.weight, form).dequantised(torch.float64)
    down = quantise_columns(block.down.weight, form)
    bias = [torch.zeros(1) if site.bias is None else site.bias.double() for site in (block.up, block.down)]
    of_bytes = status().isa == "avx512_vnni"
    x = on_grid(x.double(), torch.tensor(127.0 if of_bytes else 32512.0))
    hidden = block.activation((x @ first.T + bias[0]).float()).double()
    steps = torch.tensor(127.0) if of_bytes else steps_of_words(hidden.count_nonzero(1)[:, None])
    return on_grid(hidden * down.scale.double(), steps) @ down.bytes.double() + bias[1]


def steps_of_words(fired: Tensor) -> Tensor:
    """So many that no sum of so many products with bytes leaves 32 bits; floats are on no grid."""
    if status().isa == "portable":
        return torch.tensor(math.inf)
    most = (2**31 - 1) // (255 * fired.clamp_min(1))
    found = torch.full(most.shape, math.inf, dtype=torch.float64)
    for steps in (4096, 8192, 16384):
        found[most >= steps] = steps
    return found


def on_grid(rows: Tensor, steps: Tensor) -> Tensor:
    step = rows.abs().amax(1, keepdim=True) / steps
    return torch.where(step > 0, (rows / step).round() * step, rows)


@pytest.mark.parametrize("kind", KERNEL_ACTIVATIONS)
def test_int8_is_its_definition(kind: str) -> None:
    block = block_with(kind)
    x = torch.randn(90, 100, generator=torch.Generator().manual_seed(3))
    close_to_definition(run(block, x, "int8"), block, x)


def close_to_definition(got: Tensor, block: MLPBlock, x: Tensor) -> None:
    """Up to ties of the grids: of 300 neurons and 100 inputs a few may lie half-way in fp32."""
    wanted = int8_definition(block, x)
    assert float((got - wanted).norm() / wanted.norm().clamp_min(1e-300)) < 2e-3
    exact = ((got - wanted).abs() <= 1e-5 * wanted.abs().amax(1, keepdim=True)).double().mean()
    assert exact > 0.8


@pytest.mark.parametrize("tokens", [1, 2, 7, 16, 65, 200])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 65, 5), (64, 130, 320), (130, 200, 129)], ids=str)
def test_int8_of_any_shape_and_by_two_threads(sizes: tuple[int, int, int], tokens: int) -> None:
    block = make_block(*sizes, shift=0.3)
    x = torch.randn(tokens, sizes[0], generator=torch.Generator().manual_seed(tokens))
    got = run(block, x, "int8")
    close_to_definition(got, block, x)
    model = alone(packed_operator(block, "int8"), library())
    two = core_with(library()).compile_model(model, "CPU", {**EXACT, "INFERENCE_NUM_THREADS": 2})
    assert torch.equal(evaluate(two, x), got)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e3, 1e20])
def test_int8_of_any_scale(scale: float) -> None:
    block = make_block(64, 256, 32, bias=False)
    x = torch.randn(20, 64, generator=torch.Generator().manual_seed(4)) * scale
    close_to_definition(run(block, x, "int8"), block, x)


def test_int8_without_any_neuron_that_fires_and_with_what_is_not_finite() -> None:
    block = make_block(64, 256, 32, shift=-100.0)
    x = torch.randn(20, 64, generator=torch.Generator().manual_seed(5))
    assert torch.equal(run(block, x, "int8"), block.down.bias.expand(20, -1))
    block = make_block(64, 256, 32)
    clean = run(block, x, "int8")
    x[3, 5], x[7, 0] = math.nan, math.inf
    got = run(block, x, "int8")
    bad = torch.zeros(20, dtype=torch.bool)
    bad[[3, 7]] = True
    assert torch.equal(got[~bad], clean[~bad]) and not torch.isfinite(got[bad]).any()


@pytest.mark.parametrize("weights, gated", [("keep", False), ("bf16", True), ("int8", True)])
def test_two_threads(weights: str, gated: bool) -> None:
    block = make_block(96, 640, 96, gated=gated)
    x = torch.randn(150, 96, generator=torch.Generator().manual_seed(6))
    model = alone(packed_operator(block, weights), library())
    two = core_with(library()).compile_model(model, "CPU", {**EXACT, "INFERENCE_NUM_THREADS": 2})
    dtype = torch.bfloat16 if weights == "bf16" else torch.float32
    check_close(evaluate(two, x).to(dtype), run(block, x, weights).to(dtype), length=640, roundings=1)


def test_blocks_of_any_scale() -> None:
    tally = fuzz.run(1, range(25))
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.tokens > 5 * tally.blocks


@pytest.mark.slow
def test_more_blocks_of_any_scale() -> None:
    tally = fuzz.run(1, range(25, 1000))
    assert not tally.failures, "\n".join(tally.failures)


def _dropped(packed: PackedOperator) -> PackedOperator:
    """The first neuron's row of `down` is gone."""
    at, item = int(np.frombuffer(packed.weights[104:112].tobytes(), "<i8")[0]), SIZES[packed.attributes["weights"]]
    weights = packed.weights.copy()
    weights[at : at + item * packed.attributes["d_out"]] = 0
    return sealed(packed.attributes, weights)


def _no_slack(packed: PackedOperator) -> PackedOperator:
    """The certificate's slack and what the grid of x adds are zero."""
    at = int(np.frombuffer(packed.weights[48:56].tobytes(), "<i8")[0])
    if at == 0:
        return packed
    row = 4 * (-(-packed.attributes["d_hidden"] // 64) * 64)
    weights = packed.weights.copy()
    weights[at + 2 * row : at + 4 * row] = 0
    return sealed(packed.attributes, weights)


def _other_activation(packed: PackedOperator) -> PackedOperator:
    relu = packed.attributes["activation"] == "relu"
    return _attribute(packed, activation="squared_relu") if relu else packed


@pytest.mark.parametrize("fault, what", [
    (_dropped, fuzz.OUTPUT), (_other_activation, fuzz.OUTPUT), (_no_slack, fuzz.OUTPUT)
])  # fmt: skip
def test_a_planted_fault_is_found(fault: fuzz.Fault, what: str) -> None:
    for index in range(300):
        if any(what in failure for failure in fuzz.run(1, [index], fault).failures):
            return
    pytest.fail("the fault was not found")


def _with_header(weights: np.ndarray, at: int, value: int) -> np.ndarray:
    changed = weights.copy()
    changed[at] = value
    return changed


WRONG = {
    "another format": (lambda p: _attribute(p, format=1), "exported in the format 1, and this extension reads 2"),
    "an unknown activation": (lambda p: _attribute(p, activation="sine"), "knows no activation called sine"),
    "an unknown type": (lambda p: _attribute(p, weights="int3"), "float32, bfloat16, float16 or int8, got int3"),
    "no inputs": (lambda p: _attribute(p, d_in=0), "beyond the kernels"),
    "too wide": (lambda p: _attribute(p, d_hidden=4096), "does not fit its 64 inputs, 4096 neurons"),
    "other bytes": (lambda p: dataclasses.replace(p, weights=_with_header(p.weights, 0, 0)), "not what was exported"),
    "truncated": (lambda p: dataclasses.replace(p, weights=p.weights[:-64].copy()), "not what was exported"),
    "less than a header": (lambda p: dataclasses.replace(p, weights=p.weights[:64].copy()), "less than their header"),
    "a changed weight": (lambda p: dataclasses.replace(p, weights=_with_header(p.weights, -77, 255)), "bytes of them"),
    "a section elsewhere": (lambda p: dataclasses.replace(p, weights=_with_header(p.weights, 46, 255)), "does not fit"),
}  # fmt: skip


def _attribute(packed: Any, **changed: Any) -> Any:
    return dataclasses.replace(packed, attributes={**packed.attributes, **changed})


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_a_sentence(name: str) -> None:
    spoil, sentence = WRONG[name]
    packed = spoil(packed_operator(make_block(64, 256, 32), "keep"))
    with pytest.raises(Exception, match=sentence):
        run_packed(packed, torch.zeros(1, 64))


def test_an_input_of_another_width_is_refused() -> None:
    compiled = core_with(library()).compile_model(
        alone(packed_operator(make_block(64, 128, 8), "keep"), library()), "CPU"
    )
    with pytest.raises(RuntimeError):
        evaluate(compiled, torch.zeros(2, 63))
