"""The recipe that gives each token a fixed number of neurons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.arguments import check_fraction, check_patterns
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.core.receipt import BlockChange
from lazyneuron.induce.relufy import Plan
from lazyneuron.induce.topk import BlockTopK, StatisticalTopK, TopK


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepTop:
    """Put :class:`lazyneuron.induce.TopK` or :class:`lazyneuron.induce.StatisticalTopK` into MLP blocks.

    Which neurons fire then depends on the whole token, so these blocks have no zero interval: they train sparsely, and
    ``accelerate_`` refuses them, since no neuron can be proved silent by itself.

    Attributes:
        density: share of a block's neurons that may fire, in (0, 1).
        group: neurons that fire together, by :class:`lazyneuron.induce.BlockTopK`; 1 for each by itself.
        statistical: estimate the cut from each token's mean and deviation instead of selecting.
        straight_through: give neurons that were cut a gradient; of no meaning when ``statistical``.
        blocks: glob patterns of block names.
    """

    density: float
    statistical: bool = False
    group: int = 1
    straight_through: bool = True
    blocks: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        if self.group < 1 or (self.group > 1 and self.statistical):
            raise ConfigError(f"`group` is >= 1, and 1 if the cut is statistical, got {self.group}.")
        check_patterns(self.blocks)

    def module_for(self, block: MLPBlock) -> TopK | StatisticalTopK | BlockTopK:
        """The activation that this block gets; at least one neuron of a token may fire."""
        if self.statistical:
            return StatisticalTopK(self.density)
        if self.group > 1:
            groups = max(1, round(self.density * block.d_hidden / self.group))
            return BlockTopK(groups, self.group, straight_through=self.straight_through)
        return TopK(max(1, round(self.density * block.d_hidden)), straight_through=self.straight_through)

    def to_data(self) -> dict[str, Any]:
        """JSON-able arguments."""
        return {"config": "KeepTop", **dataclasses.asdict(self), "blocks": list(self.blocks)}

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> KeepTop:
        """The config that :meth:`to_data` wrote.

        Raises:
            CheckpointError: the data are not such a config.
        """
        try:
            arguments = dict(data)
            if arguments.pop("config") != "KeepTop":
                raise ValueError(f"its config is {data['config']!r}")
            return KeepTop(**{**arguments, "blocks": tuple(arguments["blocks"])})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"This is not a KeepTop config ({error}); pass what KeepTop.to_data wrote."
            ) from error


def propose_top(blocks: Sequence[MLPBlock], *, config: KeepTop) -> Plan:
    """The plan of a top-k change for blocks that were found already."""
    names = [block.name for block in blocks]
    unmatched = tuple(p for p in config.blocks if not any(fnmatchcase(name, p) for name in names))
    changes = []
    for block in blocks:
        action, reason = "replaced", f"{block.activation.kind} is to become {config.module_for(block)!r}."
        if not any(fnmatchcase(block.name, pattern) for pattern in config.blocks):
            action, reason = "skipped", "No pattern matches its name."
        elif block.d_hidden % config.group:
            action, reason = "skipped", f"Its {block.d_hidden} neurons do not divide into groups of {config.group}."
        elif block.activation == config.module_for(block).activation_spec():
            action, reason = "skipped", f"Its activation is already {block.activation.kind}."
        elif block.site is None:
            action = "skipped"
            reason = f"Its activation ({block.activation.kind}) is written into a forward and cannot be replaced."
        details = {"before": [block.activation.kind, *block.activation.parameters]}
        changes.append(BlockChange(block=block.name, action=action, reason=reason, details=details))
    return Plan(changes=tuple(changes), unmatched=unmatched)
