"""Everything random that a training draws from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn

from lazyneuron.core.errors import MALFORMED, CheckpointError, said
from lazyneuron.induce.modules.token_noise import TokenWeightNoise


def random_state() -> dict[str, Any]:
    """The state of the global generators of Python, NumPy and torch, on every device that is in use."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any] | int) -> None:
    """Put back what :func:`random_state` gave, or seed all of them.

    Raises:
        CheckpointError: it was taken with more devices than there are, or is no such state; nothing has changed then.
    """
    now = random_state()
    try:
        _set(state)
    except BaseException as error:
        _set(now)
        if isinstance(error, CheckpointError) or not isinstance(error, MALFORMED):
            raise
        raise CheckpointError(
            f"The saved random state is damaged ({said(error)}); use an earlier checkpoint."
        ) from error


def set_noise(model: nn.Module, states: Any) -> None:
    """Set the model's own generators, all or none.

    Raises:
        CheckpointError: a state is missing or none.
    """
    generators = noise_generators(model)
    before = {name: generator.get_state() for name, generator in generators.items()}
    try:
        for name, generator in generators.items():
            generator.set_state(states[name])
    except MALFORMED as error:
        for name, generator in generators.items():
            generator.set_state(before[name])
        raise CheckpointError(
            f"The saved states of noise generators do not fit this model ({said(error)}); use another checkpoint."
        ) from error


def _set(state: dict[str, Any] | int) -> None:
    if isinstance(state, int):
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        return
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if len(state["cuda"]) > there:
        raise CheckpointError(
            f"The checkpoint holds random states of {len(state['cuda'])} GPUs, but there are {there}; resume on a "
            "machine with as many."
        )
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    for device, value in enumerate(state["cuda"]):
        torch.cuda.set_rng_state(value, device)


def noise_generators(model: nn.Module) -> dict[str, torch.Generator]:
    """The model's own generators, by the name of the module that draws from them."""
    found = {name: m.generator for name, m in model.named_modules() if isinstance(m, TokenWeightNoise)}
    return {name: generator for name, generator in found.items() if generator is not None}
