"""From a torch model to OpenVINO's: each block becomes one node while the model is traced.

A node that the converter meets is the surest way: matching the converted graph would have to know every form in which
layers, activation and bias come out of a converter, and ONNX would be one more of them.
"""

from __future__ import annotations

import functools
import itertools
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks import MLPBlock, splice_
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.core.errors import MALFORMED, ConfigError, said
from lazyneuron.core.undo import restore_, transaction
from lazyneuron.export.openvino.fuse import fused
from lazyneuron.export.openvino.layout import PackedOperator

OPERATOR = "SparseMLP"
_numbers = itertools.count()
_standing: weakref.WeakValueDictionary[int, Standing] = weakref.WeakValueDictionary()


def precision(weights: str) -> str:
    """OpenVINO's name of what a model's products are made in, beside blocks of this format."""
    return "bf16" if weights == "bf16" else "f32"


class Standing:
    """Stands for a block while the model is traced."""

    def __init__(self, block: MLPBlock) -> None:
        self.block = block
        self.number = next(_numbers)
        _standing[self.number] = self

    def __call__(self, x: Tensor) -> Tensor:
        """The block, as one operator of the trace."""
        return _operator()(x, self.number, self.block.d_out)


@functools.cache
def _operator() -> Callable[[Tensor, int, int], Tensor]:
    """The operator ``lazyneuron::exported_block(x, number, d_out)``, registered on first use."""
    run = torch.library.custom_op("lazyneuron::exported_block", _execute, mutates_args=())
    run.register_fake(lambda x, number, d_out: x.new_empty((*x.shape[:-1], d_out)))
    call: Callable[[Tensor, int, int], Tensor] = torch.ops.lazyneuron.exported_block.default
    return call


def _execute(x: Tensor, number: int, d_out: int) -> Tensor:
    return _standing[number].block.forward(x)


@functools.cache
def _factory(library: Path) -> Any:
    from openvino.utils.node_factory import NodeFactory

    factory = NodeFactory()
    factory.add_extension(str(library))
    return factory


@functools.cache
def core_with(library: Path) -> Any:
    """OpenVINO's core, knowing our operator."""
    import openvino

    core = openvino.Core()
    core.add_extension(str(library))
    return core


def node_of(packed: PackedOperator, x: Any, library: Path) -> Any:
    """A block as a node of OpenVINO's graph, on an output of another."""
    import openvino

    weights = openvino.op.Constant(packed.weights, shared_memory=False)
    return _factory(library).create(OPERATOR, [x, weights.output(0)], dict(packed.attributes))


def converted(
    model: nn.Module, packed: Sequence[tuple[MLPBlock, PackedOperator | None]], example: Any, library: Path
) -> Any:
    """The model in OpenVINO's form, with one node of ours for each packed block and what follows it.

    Args:
        model: given back as it was.
        packed: blocks of this model, and what their nodes hold; None for a block that is left out, so that its input
            goes on: what remains is what no work on it can take away.
        example: one batch; every axis of its tensors may have another length later.
        library: the extension.

    Raises:
        ConfigError: the model cannot be traced or converted.
    """
    from openvino.frontend.pytorch import ConversionExtension

    standing = {s.number: (s, operator) for s, operator in ((Standing(b), p) for b, p in packed)}

    def node(context: Any) -> Any:
        _, operator = standing[context.get_values_from_const_input(1)]
        x = context.get_input(0)
        return [x] if operator is None else node_of(operator, x, library).outputs()

    extension = ConversionExtension("lazyneuron::exported_block", node)
    with borrowed(model, bare=True):
        with transaction(model, name := "export") as change:
            config = getattr(model, "config", None)
            if getattr(config, "use_cache", False):
                change.set(config, "use_cache", False)  # a cache is no tensor that a trace could give back
            for s, _ in standing.values():
                splice_(change, s.block, s)
            done = _traced(model, example, [extension, library])
        restore_(model, name)
    return fused(done, OPERATOR, node_of, library)


def _traced(model: nn.Module, example: Any, extensions: list[Any]) -> Any:
    import openvino

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return openvino.convert_model(model, example_input=example, extension=extensions)
    except MALFORMED as error:
        raise ConfigError(f"OpenVINO cannot convert this model ({said(error)}); export another one.") from error
