"""Replacing smooth activation functions by one that is exactly zero on an interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.arguments import check_patterns, described
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.core.receipt import BlockChange

RELU = Activation("relu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relufy:
    """Give MLP blocks an activation function with silent neurons.

    The output changes; train afterwards, e.g. with :func:`lazyneuron.induce.distill`.

    Attributes:
        blocks: glob patterns of block names; a block that matches any of them is changed.
        activation: the function to install; it must have a zero interval.
        per_block: other functions for some blocks, by name, such as the thresholds of :func:`thresholds_for`.
        rectify_up: in gated blocks rectify up as well, so that a neuron is silent where either factor is; with ReLU
            this is dReLU, ``relu(gate) * relu(up)``. Blocks without a gate are then skipped.
    """

    blocks: tuple[str, ...] = ("*",)
    activation: Activation = RELU
    per_block: Mapping[str, Activation] = dataclasses.field(default_factory=dict)
    rectify_up: bool = False

    def __post_init__(self) -> None:
        check_patterns(self.blocks)
        if not isinstance(self.per_block, Mapping):
            raise ConfigError(f"`per_block` maps names of blocks to activations, got {described(self.per_block)}.")
        for activation in (self.activation, *self.per_block.values()):
            if not isinstance(activation, Activation):
                raise ConfigError(
                    f"Relufy installs an Activation, got {described(activation)}; use Activation('relu')."
                )
            if activation.zero.empty:
                raise ConfigError(
                    f"Activation {activation.kind!r} is zero nowhere, so no neuron would fall silent; "
                    "choose one with a zero interval, such as relu."
                )

    def activation_of(self, block: str) -> Activation:
        """The function that this block gets."""
        return self.per_block.get(block, self.activation)

    def to_data(self) -> dict[str, Any]:
        """JSON-able arguments."""
        return {
            "config": "Relufy",
            "blocks": list(self.blocks),
            "activation": _spell(self.activation),
            "per_block": {name: _spell(activation) for name, activation in self.per_block.items()},
            "rectify_up": self.rectify_up,
        }

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Relufy:
        """The config that :meth:`to_data` wrote.

        Raises:
            CheckpointError: the data are not such a config.
        """
        try:
            if data["config"] != "Relufy":
                raise ValueError(f"its config is {data['config']!r}")
            per_block = {str(name): _read(spelled) for name, spelled in data["per_block"].items()}
            return Relufy(
                blocks=tuple(data["blocks"]),
                activation=_read(data["activation"]),
                per_block=per_block,
                rectify_up=bool(data.get("rectify_up", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"This is not a Relufy config ({error}); pass what Relufy.to_data wrote.") from error


def _read(spelled: list[Any]) -> Activation:
    kind, *parameters = spelled
    return Activation(kind, tuple(parameters))


def _spell(activation: Activation) -> list[object]:
    return [activation.kind, *activation.parameters]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What :func:`lazyneuron.sparsify_` would do.

    Attributes:
        changes: one entry for each block: ``"replaced"`` or ``"skipped"``, with the reason.
        unmatched: patterns that hit no block.
    """

    changes: tuple[BlockChange, ...]
    unmatched: tuple[str, ...] = ()

    @property
    def replaced(self) -> tuple[str, ...]:
        """Names of the blocks that would change."""
        return tuple(change.block for change in self.changes if change.action == "replaced")


def propose(blocks: Sequence[MLPBlock], *, config: Relufy) -> Plan:
    """The plan for blocks that were found already."""
    names = [block.name for block in blocks]
    unmatched = [p for p in config.blocks if not any(fnmatchcase(name, p) for name in names)]
    unmatched += [name for name in config.per_block if name not in names]
    return Plan(changes=tuple(_decide(block, config) for block in blocks), unmatched=tuple(unmatched))


def _decide(block: MLPBlock, config: Relufy) -> BlockChange:
    before, after = block.activation, config.activation_of(block.name)
    action, reason = "replaced", f"{before.kind} is to become {after.kind}."
    if config.rectify_up:
        reason = f"{before.kind} is to become {after.kind}, and up is to be rectified."
    if not any(fnmatchcase(block.name, pattern) for pattern in config.blocks):
        action, reason = "skipped", "No pattern matches its name."
    elif config.rectify_up and block.gate is None:
        action, reason = "skipped", "It is not gated, so there is no second factor to rectify."
    elif before == after and (block.rectifies_up or not config.rectify_up):
        action, reason = "skipped", f"Its activation is already {before.kind}."
    elif block.site is None:
        reason = f"Its activation ({before.kind}) is written into a forward and cannot be replaced from outside."
        action = "skipped"
    details = {"before": _spell(before), "after": _spell(after if action == "replaced" else before)}
    return BlockChange(block=block.name, action=action, reason=reason, details=details)
