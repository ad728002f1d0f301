"""Certified skipping: neurons that are proved silent cost (almost) nothing, and the output stays what it was.

For everyone who runs a trained model. `machine` knows what this machine costs, `policy` chooses the path of a block,
`slack` holds the proof and its calibrated form, `execution` runs a block and notices changes, and `head` skips entries
of a vocabulary. What is chosen when may be tuned freely; nothing that decides what is skipped changes without its proof
(docs/accelerate.md, docs/head.md) and the fuzz.
"""

from lazyneuron.accelerate.head.status import head_status
from lazyneuron.accelerate.head.transform import certify_head_
from lazyneuron.accelerate.plan import plan_acceleration
from lazyneuron.accelerate.status import refresh_, status
from lazyneuron.accelerate.transform import accelerate_

__all__ = ["accelerate_", "certify_head_", "head_status", "plan_acceleration", "refresh_", "status"]
