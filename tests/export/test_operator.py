"""The operator in OpenVINO: within the bounds, the bits of torch's, dynamic shapes, sentences for what does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lazyneuron.blocks import MLPBlock
from lazyneuron.blocks.activation import Activation
from lazyneuron.export.openvino.choice import alone
from lazyneuron.export.openvino.convert import core_with
from lazyneuron.export.openvino.layout import on_copies, packed_operator
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS
from tests.accelerate.blocks import make_block
from tests.accelerate.comparison import check_close
from tests.export import fuzz
from tests.export.openvino import EXACT, evaluate, library, needs_openvino, run, run_packed

pytestmark = needs_openvino
PARAMETERS = {"jsrelu": (0.5, 2.0), "fatrelu": (0.3,)}


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


def test_int8_rows_differ_by_their_rounding_alone() -> None:
    block = make_block(96, 200, 64)
    x = torch.randn(40, 96, generator=torch.Generator().manual_seed(3))
    wanted = block.forward(x)
    error = (run(block, x, "int8") - wanted).norm() / wanted.norm()
    assert 1e-4 < error < 0.02


def test_blocks_of_any_scale() -> None:
    tally = fuzz.run(1, range(60))
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.tokens > 5 * tally.blocks


@pytest.mark.slow
def test_more_blocks_of_any_scale() -> None:
    tally = fuzz.run(1, range(60, 1000))
    assert not tally.failures, "\n".join(tally.failures)


def _dropped(block: MLPBlock) -> MLPBlock:
    copy = on_copies(block, block.up.weight.dtype)
    copy.down.weight.data[:, 0] = 0
    return copy


def _shifted(block: MLPBlock) -> MLPBlock:
    copy = on_copies(block, block.up.weight.dtype)
    if copy.first.bias is not None:
        copy.first.bias.data.mul_(1.01)
    return copy


@pytest.mark.parametrize("fault", [_dropped, _shifted])
def test_a_planted_fault_is_found(fault: fuzz.Fault) -> None:
    for index in range(60):
        if any(fuzz.OUTPUT in failure for failure in fuzz.run(1, [index], fault).failures):
            return
    pytest.fail("the fault was not found")


def _with_header(weights: np.ndarray, at: int, value: int) -> np.ndarray:
    changed = weights.copy()
    changed[at] = value
    return changed


WRONG = {
    "another format": (lambda p: _attribute(p, format=2), "exported in the format 2, and this extension reads 1"),
    "an unknown activation": (lambda p: _attribute(p, activation="sine"), "knows no activation called sine"),
    "an unknown type": (lambda p: _attribute(p, weights="int3"), "float32, bfloat16, float16 or int8, got int3"),
    "no inputs": (lambda p: _attribute(p, d_in=0), "beyond the kernels"),
    "too wide": (lambda p: _attribute(p, d_hidden=4096), "does not fit its 64 inputs, 4096 neurons"),
    "other bytes": (lambda p: dataclasses.replace(p, weights=_with_header(p.weights, 0, 0)), "not what was exported"),
    "truncated": (lambda p: dataclasses.replace(p, weights=p.weights[:-64].copy()), "not what was exported"),
    "less than a header": (lambda p: dataclasses.replace(p, weights=p.weights[:64].copy()), "less than their header"),
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
