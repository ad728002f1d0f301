"""When a block's step is computed by what fires alone, and what was kept and computed so far."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook as _any_hook

from lazyneuron.train.packing.costs import BlockShape, costs_for
from lazyneuron.train.packing.packed import Packed


def takes_sparse(x: Tensor) -> bool:
    """Are these numbers that sparse products take as they are?"""
    return x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def is_watched(module: nn.Module) -> bool:
    """Do hooks see what a module receives? Those that say ``only_output = True`` do not."""
    own = module.__dict__
    if own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"] or _any_hook():  # type: ignore[no-untyped-call]
        return True
    return not all(getattr(hook, "only_output", False) for hook in own["_forward_hooks"].values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseSteps:
    """When a block's step is computed by what fires alone.

    Attributes:
        shape: of the block.
        always: whatever it costs.
    """

    shape: BlockShape
    always: bool = False

    def pay(self, h: Tensor, packed: Packed) -> bool:
        """Is this call to be sparse: possible, with nobody watching the gradient, and faster?"""
        if not takes_sparse(h) or packed.kept is not None or packed.watched or h._backward_hooks or h.retains_grad:
            return False
        tokens = packed.bits.shape[0]
        return self.always or costs_for(self.shape, tokens).is_sparse_faster(tokens, packed.values.numel())


@dataclasses.dataclass
class Tally:
    """What one block kept, and would have kept, in all forwards.

    Attributes:
        kept_bytes: of its hidden layer, packed.
        tokens: that went through ``down``.
        dense_bytes: what its own code keeps of the hidden layer for one token.
        sparse_calls: of ``down``, that were computed by what fires alone.
        dense_calls: the others.
    """

    kept_bytes: int = 0
    tokens: int = 0
    dense_bytes: int = 0
    sparse_calls: int = 0
    dense_calls: int = 0
