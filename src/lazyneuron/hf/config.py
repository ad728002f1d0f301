"""What `from_pretrained(..., quantization_config=LazyConfig(...))` is to do."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lazyneuron.accelerate.quantised.plan import Quantisation
from lazyneuron.accelerate.quantised.transform import Bits, quantisation_of
from lazyneuron.core.errors import ConfigError, ImplUnavailable

METHOD = "lazyneuron"

try:
    from transformers.quantizers.auto import register_quantization_config
    from transformers.utils.quantization_config import QuantizationConfigMixin

    if find_spec("transformers.core_model_loading") is None:  # before it, quantisers were asked for each parameter
        raise ImportError("transformers 4")
except ImportError as error:
    raise ImplUnavailable(
        "lazyneuron.hf needs transformers 5 or later, whose registry of quantisers takes ours; run "
        "`pip install -U 'lazyneuron[hf]'`."
    ) from error

if TYPE_CHECKING:
    Mixin = object
else:
    Mixin = QuantizationConfigMixin


class LazyConfig(Mixin):
    """How a transformers model is quantised and its MLP blocks are executed while it is loaded.

    Args:
        weights: of the MLP blocks: ``"int8"``, ``"int4"``, or ``"keep"``, which executes them as they are wherever that
            is faster. Rows of neurons that do not fire are not read.
        rest: of all other linear layers, the language-model head included: ``"keep"``, ``"int8"`` or ``"int4"``.
        group: weights along a row that share a scale when they have 4 bits: 32, 64 or 128.
        receipt: what was done when the folder was saved; written by ``save_pretrained``.

    Attributes:
        quant_method: the name under which ``config.json`` keeps this.

    Raises:
        ConfigError: an unknown format, group or name.

    Example:
        >>> from lazyneuron.hf import LazyConfig
        >>> LazyConfig(weights="int8", rest="int4").to_diff_dict()
        {'quant_method': 'lazyneuron', 'weights': 'int8', 'rest': 'int4', 'group': 32}
    """

    quant_method = METHOD

    def __init__(
        self,
        *,
        weights: Bits = "int8",
        rest: Bits = "keep",
        group: int = 32,
        receipt: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        others.pop("quant_method", None)
        if others:
            raise ConfigError(
                f"LazyConfig takes weights, rest and group, got {sorted(others)}; leave these out, or update "
                "lazyneuron if a folder was saved with them."
            )
        quantisation_of(weights, rest, group)
        self.quant_method = METHOD
        self.weights: Bits = weights
        self.rest: Bits = rest
        self.group = group
        self.receipt = None if receipt is None else dict(receipt)

    @property
    def quantisation(self) -> Quantisation | None:
        """The formats, or None when all weights are kept."""
        return quantisation_of(self.weights, self.rest, self.group)

    def to_diff_dict(self) -> dict[str, Any]:
        """What is shown when a config is printed: all but the receipt, which names every layer."""
        shown = ("quant_method", "weights", "rest", "group")
        return {name: getattr(self, name) for name in shown}


register_quantization_config(METHOD)(LazyConfig)
