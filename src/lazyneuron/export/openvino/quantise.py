"""OpenVINO's own int8 for what is not one of our operators, by NNCF's post-training quantisation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from lazyneuron.core.errors import MALFORMED, ConfigError, ImplUnavailable, said

MISSING = "int8 for the rest of the model needs nncf; run pip install 'lazyneuron[peers]'."


def quantised(model: Any, feeds: Sequence[Any]) -> Any:
    """An OpenVINO model with its products in int8.

    Args:
        model: the OpenVINO model.
        feeds: what it is calibrated on, each as its compiled form takes it.

    Raises:
        ImplUnavailable: nncf is not installed.
        ConfigError: it refuses the model.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nncf
    except ImportError as error:
        raise ImplUnavailable(MISSING) from error
    nncf.set_log_level(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nncf.quantize(
                model, nncf.Dataset(list(feeds)), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(feeds)
            )
    except MALFORMED as error:
        raise ConfigError(f"NNCF cannot quantise this model ({said(error)}); export it with rest='keep'.") from error
