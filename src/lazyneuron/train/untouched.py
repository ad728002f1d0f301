"""All or nothing for what a checkpoint is loaded into."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from lazyneuron.train.random_state import random_state, set_random_state


@contextlib.contextmanager
def untouched_on_failure(model: nn.Module, parts: Mapping[str, Any]) -> Iterator[None]:
    """Give model, parts and random states back what they had if the body fails.

    Args:
        model: the model.
        parts: optimisers, generators, and other things with ``state_dict`` and ``load_state_dict``.

    Cost: a copy of the model's state while the body runs; states of optimisers are not copied.
    """
    random = random_state()
    weights = {k: v.detach().clone() if hasattr(v, "detach") else v for k, v in model.state_dict().items()}
    kept = {name: _kept(part) for name, part in parts.items()}
    try:
        yield
    except BaseException:
        for name, part in parts.items():
            if isinstance(part, torch.optim.Optimizer):
                vars(part).update(kept[name])
            elif isinstance(part, torch.Generator):
                part.set_state(kept[name])
            else:
                part.load_state_dict(kept[name])
        with torch.no_grad():
            model.load_state_dict(weights)
        set_random_state(random)
        raise


def _kept(part: Any) -> Any:
    if isinstance(part, torch.optim.Optimizer):
        return dict(vars(part))  # loading exchanges its state and groups, and leaves the old ones as they are
    return part.get_state() if isinstance(part, torch.Generator) else copy.deepcopy(part.state_dict())
