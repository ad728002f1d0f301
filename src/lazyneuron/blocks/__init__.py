"""MLP blocks: what they are, how they are found in any model, and how their execution is replaced.

For every room: a block evaluates itself, `find/` finds it, `recorder.py` shows its tensors, `splice/` replaces its
execution, `borrowed.py` gives a model back as it was. A new activation function is a line in `activation.py`.
"""

from lazyneuron.blocks.activation import Activation, DeclaresActivation
from lazyneuron.blocks.block import ActivationSite, LinearSite, MLPBlock
from lazyneuron.blocks.find import Found, find, find_blocks
from lazyneuron.blocks.find.rejected import Rejected
from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.blocks.splice import replace_activation_, splice_

__all__ = [
    "Activation",
    "ActivationSite",
    "DeclaresActivation",
    "Found",
    "LinearSite",
    "MLPBlock",
    "Rejected",
    "ZeroInterval",
    "find",
    "find_blocks",
    "replace_activation_",
    "splice_",
]
