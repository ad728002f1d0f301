"""Finding MLP blocks in any model by what its modules compute: traces, candidates, experiments, and what is refused.

For every room that takes a model. `search.py` decides which modules are traced, `confirm.py` alone what a block
is. Nothing here may leave a trace on the model, which `tests/blocks/test_purity.py` checks.
"""

from lazyneuron.blocks.find.finder import Found, find, find_blocks
from lazyneuron.blocks.find.given import blocks_of, check_blocks, found_in
from lazyneuron.blocks.find.rejected import Rejected
from lazyneuron.blocks.find.skip import Skip, find_skip

__all__ = ["Found", "Rejected", "Skip", "blocks_of", "check_blocks", "find", "find_blocks", "find_skip", "found_in"]
