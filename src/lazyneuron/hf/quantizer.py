"""The quantiser that transformers calls while it loads and saves a model with our config."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer

from lazyneuron.accelerate.transform import accelerate_
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.core.receipt import Receipt
from lazyneuron.hf.config import METHOD, LazyConfig
from lazyneuron.hf.loading import Loading, Places, prepare_, quantised_again_, settle_
from lazyneuron.ops.quantised.operators import operators

try:
    from transformers.core_model_loading import ConversionOps
except ImportError:  # before 5.0, layers are quantised once all are read
    ConversionOps = object  # type: ignore[misc,assignment]


class LazyQuantizer(HfQuantizer):
    """Quantises layer by layer while transformers reads a model; reads what was saved without quantising anew.

    Made by transformers; see :class:`lazyneuron.hf.LazyConfig`.
    """

    requires_calibration = False
    quantization_config: LazyConfig  # type: ignore[assignment]
    pre_quantized: bool

    def __init__(self, quantization_config: LazyConfig, **others: Any) -> None:
        super().__init__(quantization_config, **others)  # type: ignore[arg-type]
        self._loading: Loading | None = None
        self._places: Places | None = None

    def validate_environment(self, *args: Any, device_map: Any = None, **others: Any) -> None:
        """Refuse devices without kernels.

        Raises:
            ConfigError: ``device_map`` names another device than the CPU.
            ImplUnavailable: the kernels are not built here.
        """
        named = device_map.values() if isinstance(device_map, dict) else [device_map]
        wrong = [str(place) for place in named if str(place) not in ("None", "auto", "cpu")]
        if wrong:
            raise ConfigError(f"LazyConfig runs models on the CPU, got device_map={device_map!r}; leave it out.")
        if self.quantization_config.quantisation is not None:
            operators()

    def update_device_map(self, device_map: Any) -> Any:
        """The CPU, whatever else the machine has."""
        return None if device_map is None else {"": "cpu"}

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype itself; a saved model keeps its own.

        Raises:
            ConfigError: another dtype than a quantised folder was saved with.
        """
        saved = self._receipt()
        kept = {layer["dtype"] for layer in saved.config["layers"]} if saved is not None else set()
        name = str(dtype).removeprefix("torch.")
        if kept and name not in kept:
            raise ConfigError(
                f"This model was quantised as {sorted(kept)[0]}, got dtype={name}; leave dtype out, or quantise the "
                "original anew."
            )
        return dtype

    def _receipt(self) -> Receipt | None:
        saved = self.quantization_config.receipt if self.pre_quantized else None
        return None if saved is None else Receipt.from_json(json.dumps(saved))

    def _process_model_before_weight_loading(self, model: nn.Module, **others: Any) -> None:
        quantisation, receipt = self.quantization_config.quantisation, self._receipt()
        if quantisation is None:
            return
        if self.pre_quantized and receipt is None:
            raise CheckpointError("The quantization_config of this model has no receipt; quantise the original anew.")
        prepare_(model)
        if receipt is not None:
            receipt, self._places = quantised_again_(model, receipt)
            self.quantization_config.receipt = receipt.to_data()
        else:
            self._loading = Loading(model, quantisation)

    def param_needs_quantization(self, model: nn.Module, param_name: str, **others: Any) -> bool:
        """Is this a weight that is quantised as soon as it is read?"""
        return self._loading is not None and param_name in self._loading.layers

    def get_quantize_ops(self) -> Any:
        """The operation that takes such weights."""
        return _Take(self._loading)

    def _process_model_after_weight_loading(self, model: nn.Module, **others: Any) -> nn.Module:
        loading, self._loading = self._loading, None
        if loading is not None:
            self.quantization_config.receipt = loading.finish(model).to_data()
        if self._places is not None:
            settle_(model, self._places)
            self._places = None
        if self.quantization_config.weights == "keep":
            accelerate_(model)
        return model

    def is_serializable(self, safe_serialization: bool | None = None) -> bool:
        """Quantised bytes are buffers, and are saved as such."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Quantised layers are for inference."""
        return False

    @property
    def is_compileable(self) -> bool:
        """Each layer, and each sparse block, is one operator to a compiler."""
        return True


class _Take(ConversionOps):
    """What transformers runs on the tensors of one weight before it would set them."""

    def __init__(self, loading: Loading | None) -> None:
        self._loading = loading

    def convert(
        self, input_dict: dict[str, Any], *args: Any, missing_keys: set[str] | None = None, **others: Any
    ) -> dict[str, Any]:
        """Quantise what is to be, and leave the rest."""
        assert self._loading is not None
        left = {}
        for name, value in input_dict.items():
            tensor = value[0] if isinstance(value, list) else value
            if name in self._loading.layers and self._loading.take(name, tensor):
                (missing_keys if missing_keys is not None else set()).discard(name)
            else:
                left[name] = value
        return left


register_quantizer(METHOD)(LazyQuantizer)
