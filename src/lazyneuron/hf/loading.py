"""Quantising each linear layer of a transformers model in the moment in which its weights are read."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.quantised.exchange import Layer
from lazyneuron.accelerate.quantised.modules import Quantised
from lazyneuron.accelerate.quantised.plan import Quantisation, plan_quantisation
from lazyneuron.accelerate.quantised.transform import quantise, quantise_again_
from lazyneuron.blocks.find import Found, find
from lazyneuron.core.errors import CheckpointError, LazyNeuronError
from lazyneuron.core.hollow import built_hollow, empty_, random_weights, to_cpu_
from lazyneuron.core.memory import advise_not_needed
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.undo import amend_
from lazyneuron.generate.load import FINAL
from lazyneuron.generate.ties import notes_of_copies
from lazyneuron.pretrained import default_dtype

Places = Mapping[str, tuple[Tensor, Tensor]]  # rows and scales by layer
_LOADED = "_is_hf_initialized"  # transformers' mark of what it has read, and need not initialise


class Loading:
    """What is known while transformers reads a model that is to be quantised.

    Weights that other names share are left to the end: only transformers knows then which of them were stored.

    Attributes:
        found: the blocks.
        layers: name of a weight -> the layer that is quantised when that weight arrives.
        made: name of a layer -> the quantised layer.
        tied: names of weights that are another's -> that other's.
        error: the first that was raised meanwhile; transformers would only log it.

    Raises:
        NoBlocksError: there is no linear layer to quantise.
        ShapeError: groups do not divide the rows of a layer.
    """

    def __init__(self, model: nn.Module, quantisation: Quantisation) -> None:
        self.quantisation = quantisation
        self.made: dict[str, Quantised] = {}
        self.error: LazyNeuronError | None = None
        with _outside_the_build(), random_weights(model):
            self.found: Found = find(model, norms=False)
            plan = plan_quantisation(model, self.found, quantisation)
            for layer in plan.layers:
                layer.check()
        self.tied: Mapping[str, str] = dict(getattr(model, "all_tied_weights_keys", None) or {})
        shared = {*self.tied, *self.tied.values()}
        names = {id(module): name for name, module in model.named_modules()}
        weights = {f"{names[id(layer.module)]}.weight": layer for layer in plan.layers}
        self.layers: dict[str, Layer] = {name: layer for name, layer in weights.items() if name not in shared}

    def take(self, name: str, tensor: Tensor) -> bool:
        """Quantise a weight that was read, and let go of it; False when it is not the shape that the model has."""
        layer = self.layers[name]
        parameter: Any = layer.module.weight
        if parameter.shape != tensor.shape:
            del self.layers[name]  # transformers says so, or makes up another, which is quantised at the end
            return False
        parameter.data = tensor
        try:
            self.made[layer.name] = layer.make()
        except LazyNeuronError as error:
            self.error = self.error or error
        finally:
            empty_(parameter)
            advise_not_needed(tensor)
        setattr(parameter, _LOADED, True)
        return True

    def finish(self, model: nn.Module) -> Receipt:
        """Put the quantised layers into the model, and quantise those that were not read one by one.

        Raises:
            AssumptionError: weights that are not finite.
        """
        if self.error is not None:
            raise self.error
        with contextlib.ExitStack() as shown:
            shown.enter_context(random_weights(model))

            def make(layers: Sequence[Layer], tell: Callable[[str], None]) -> dict[str, Quantised]:
                shown.close()
                return {layer.name: self._made(layer) for layer in layers}

            receipt = quantise(model, self.found, self.quantisation, None, lambda message: None, make=make)
        aliases = {**dict(self.tied), **{name: name for name in self.tied.values()}}
        notes = (*receipt.notes, *notes_of_copies(model, aliases))
        receipt = dataclasses.replace(receipt, notes=notes)
        amend_(model, receipt, final=FINAL)
        _untie_(model)
        return receipt

    def _made(self, layer: Layer) -> Quantised:
        if layer.name not in self.made:
            return layer.make()
        quantised, bias = self.made[layer.name], layer.module.bias
        if isinstance(bias, Tensor):
            quantised.bias = bias.detach()  # it was read later than the weight
        return quantised


def prepare_(model: nn.Module) -> None:
    """Give a model that transformers built on the meta device hollow parameters on the CPU, and buffers their numbers.

    Args:
        model: within ``from_pretrained``, before its weights are read.
    """
    with _outside_the_build():
        if any(buffer.is_meta for buffer in model.buffers()):
            _real_buffers_(model)
        to_cpu_(model)


def quantised_again_(model: nn.Module, receipt: Receipt) -> tuple[Receipt, Places]:
    """Make the empty layers of a saved quantisation in a hollow model.

    Returns:
        The receipt, with the names that this model has, and the memory in which rows and scales are to lie.

    Raises:
        CheckpointError: the receipt does not fit the model.
    """
    receipt = _for_this_class(model, receipt)
    with _outside_the_build(), random_weights(model):
        done = quantise_again_(model, receipt)
    amend_(model, done, final=FINAL)
    _untie_(model)
    layers = dict(_quantised(model))
    for layer in layers.values():
        setattr(layer, _LOADED, True)
    return done, {name: (layer.rows, layer.scale) for name, layer in layers.items()}


def _for_this_class(model: nn.Module, receipt: Receipt) -> Receipt:
    """The receipt with the names of this class: that of the base without heads, or with other heads around it.

    Raises:
        CheckpointError: it names layers that none of them has.
    """
    modules = dict(model.named_modules())
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    moves: tuple[Callable[[str], str], ...] = (
        lambda name: name,
        lambda name: prefix + name,
        lambda name: name.removeprefix(prefix),
    )
    data = receipt.config["layers"]
    if all(layer["name"] in modules for layer in data):
        return receipt
    move = max(moves, key=lambda move: sum(move(layer["name"]) in modules for layer in data))
    layers = [{**layer, "name": move(layer["name"])} for layer in data if move(layer["name"]) in modules]
    if not layers:
        raise CheckpointError(
            f"This {type(model).__name__} has no layer such as {data[0]['name']}, which was quantised; load the folder "
            "with the class that it was saved from."
        )
    config = {
        **receipt.config,
        "layers": layers,
        "blocks": [move(name) for name in receipt.config["blocks"]],
    }
    for key in {"norms", "decoders"} & config.keys():
        named = {move(name): data for name, data in config[key].items()}
        config[key] = {name: data for name, data in named.items() if name in modules}
    changes = tuple(dataclasses.replace(change, block=move(change.block)) for change in receipt.changes)
    return dataclasses.replace(receipt, config=config, changes=changes)


def settle_(model: nn.Module, places: Places) -> None:
    """Copy rows and scales that lie in the pages of their file into the memory that was made for them.

    Raises:
        CheckpointError: bytes of a layer were not in the files.
    """
    for name, layer in _quantised(model):
        missing = [key for key, buffer in layer.named_buffers() if not getattr(buffer, _LOADED, False)]
        if missing:
            raise CheckpointError(
                f"{name}.{missing[0]} of this {type(model).__name__} is not in its files; name a folder that "
                "save_pretrained wrote whole."
            )
        pairs = list(zip(_stored(layer), places[name], strict=True))
        if any(got.shape != own.shape or got.dtype != own.dtype for got, own in pairs):
            raise CheckpointError(f"{name} has other bytes than its receipt says; save the quantised model anew.")
        read = layer.rows
        layer.rows, layer.scale = (own.copy_(got) for got, own in pairs)
        advise_not_needed(read)


def _stored(layer: Quantised) -> tuple[Tensor, Tensor]:
    return layer.rows, layer.scale


def _untie_(model: nn.Module) -> None:
    """Let transformers know that a quantised layer is a copy, and no other weight's any more."""
    tied = getattr(model, "all_tied_weights_keys", None)
    if isinstance(tied, dict):
        quantised = {f"{name}.weight" for name, _ in _quantised(model)}
        model.all_tied_weights_keys = {  # type: ignore[assignment]
            name: other for name, other in tied.items() if not {name, other} & quantised
        }


def _quantised(model: nn.Module) -> Iterator[tuple[str, Quantised]]:
    for name, module in model.named_modules():
        if isinstance(module, Quantised):
            yield name, module


def _real_buffers_(model: Any) -> None:
    """Buffers as the model's class computes them: blocks are told apart by experiments, which may need them."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with built_hollow(), default_dtype(model.dtype):
        computed = dict(type(model)._from_config(config).named_buffers(remove_duplicate=False))
    for name, module in model.named_modules():
        for key, buffer in module._buffers.items():
            real = computed.get(f"{name}.{key}" if name else key)
            if buffer is not None and buffer.is_meta and real is not None:
                module._buffers[key] = real


@contextlib.contextmanager
def _outside_the_build() -> Iterator[None]:
    """Within this, tensors are made as ever, also where transformers builds models on the meta device."""
    with torch.device("cpu"), default_dtype(torch.float32):
        yield
