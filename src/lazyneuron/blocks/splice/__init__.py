"""Replacing how a block is executed, or its activation function, in place and undoably, and why it cannot be.

For `induce`, `accelerate` and `route`. What is set on modules lives in their ``__dict__`` and holds no state between
calls, so that `copy.deepcopy` and `state_dict` are as ever; keep it so.
"""

from lazyneuron.blocks.splice.replace import ActivationModule, replace_activation_, splice_

__all__ = ["ActivationModule", "replace_activation_", "splice_"]
