"""What a recipe is, the register of recipes by name, and the plan that a recipe makes of a model."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import found_in
from lazyneuron.core.arguments import check_patterns, described
from lazyneuron.core.errors import MALFORMED, CheckpointError, ConfigError
from lazyneuron.core.receipt import BlockChange
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.recipe_data import field_from_data, field_to_data, field_types, spelled

C = TypeVar("C", bound="Config")


class Config(abc.ABC):
    """What :func:`lazyneuron.sparsify_` takes: a :class:`Recipe`, or several as one.

    Its name in saved files is that of its class.
    """

    @property
    @abc.abstractmethod
    def steps(self) -> tuple[Recipe, ...]:
        """The recipes to apply, in order."""

    @abc.abstractmethod
    def with_steps(self, steps: tuple[Recipe, ...]) -> Config:
        """The same with other recipes, such as those with what was fitted on data."""

    def to_data(self) -> dict[str, Any]:
        """JSON-able arguments."""
        return {"config": type(self).__name__} | {
            name: field_to_data(getattr(self, name)) for name in field_types(type(self))
        }

    @classmethod
    def from_data(cls: type[C], data: Mapping[str, Any]) -> C:
        """The config that :meth:`to_data` wrote.

        Raises:
            CheckpointError: the data are not such a config.
        """
        try:
            arguments = dict(data)
            if arguments.pop("config") != cls.__name__:
                raise ValueError(f"its config is {data['config']!r}")
            types = field_types(cls)
            unknown = sorted(arguments.keys() - types.keys())
            if unknown:
                raise ValueError(f"it has no field {unknown[0]!r}")
            read = {n: field_from_data(types[n], value, recipe=recipe_from_data) for n, value in arguments.items()}
            if "blocks" in types and "blocks" not in read:
                raise ValueError("its blocks are missing")
            return cls(**read)
        except MALFORMED as error:
            name = cls.__name__
            raise CheckpointError(f"This is no {name} config ({error}); pass what {name}.to_data wrote.") from error


class Recipe(Config):
    """How :func:`lazyneuron.sparsify_` changes a model's MLP blocks, one by one.

    Derive a frozen keyword-only dataclass from it and decorate that with :func:`register_recipe`.

    Attributes:
        blocks: glob patterns of block names; the only field that every recipe has.
    """

    blocks: tuple[str, ...]

    @property
    def only_activations(self) -> bool:
        """Are other activation functions all that it brings into a model?"""
        return False

    @property
    def steps(self) -> tuple[Recipe, ...]:
        """Itself."""
        return (self,)

    def with_steps(self, steps: tuple[Recipe, ...]) -> Recipe:
        """The only step."""
        return steps[0]

    @abc.abstractmethod
    def refuses(self, model: nn.Module, block: MLPBlock, *, blocks: Sequence[MLPBlock]) -> str | None:
        """One sentence why this block cannot be changed, or None; ``blocks`` are all that were found."""

    @abc.abstractmethod
    def describes(self, model: nn.Module, block: MLPBlock) -> str:
        """One sentence on what becomes of a block that is not refused."""

    @abc.abstractmethod
    def install_(self, change: Transaction, block: MLPBlock, *, fitted: Any) -> None:
        """Change one block, through the transaction alone, so that it can be taken back.

        Args:
            change: the open transaction on the model; its ``set`` and what takes it, such as ``replace_activation_``.
            block: one that is not refused.
            fitted: what :meth:`fit` found for this block; None without.
        """

    def names(self) -> Iterable[str]:
        """Blocks that the recipe names one by one; the receipt says which of them the model has not got."""
        return ()

    def details(self, block: MLPBlock, *, replaced: bool) -> Mapping[str, Any]:
        """JSON-able facts about a block for the receipt; the activation function that it had."""
        return {"before": spelled(block.activation)}

    def notes(self) -> tuple[str, ...]:
        """Sentences for the receipt about the whole change."""
        return ()

    def fit(self, model: nn.Module, blocks: Sequence[MLPBlock], *, batches: Iterable[Any] | None) -> Fitted:
        """What is found on data before the blocks are changed; raises if the recipe needs data and there are none."""
        return Fitted(recipe=self)

    def finish_(self, change: Transaction) -> None:
        """Change what belongs to no block, after the last one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a recipe found on data.

    Attributes:
        recipe: with what was found in its fields, so that it needs no data when it is applied again.
        details: facts for the receipt, by block.
        found: what :meth:`Recipe.install_` gets, by block.
        notes: sentences for the receipt.
    """

    recipe: Recipe
    details: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    found: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


RECIPES: dict[str, type[Config]] = {}


def register_recipe(kind: type[C]) -> type[C]:
    """Make a recipe known by its class's name, so that saved models, and the command line, find it.

    Raises:
        ConfigError: it is no frozen dataclass that derives from :class:`Recipe`, its annotations cannot be resolved, or
            another class has the name.
    """
    fits = isinstance(kind, type) and issubclass(kind, Config) and dataclasses.is_dataclass(kind)
    if not fits or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ConfigError(f"A recipe is a frozen dataclass that derives from Recipe, got {described(kind)}.")
    other = RECIPES.get(kind.__name__)
    if other is not None and (other.__module__, other.__qualname__) != (kind.__module__, kind.__qualname__):
        raise ConfigError(f"There is a recipe {kind.__name__} already, in {other.__module__}; choose another name.")
    field_types(kind)
    RECIPES[kind.__name__] = kind
    return kind


def recipe_from_data(data: Mapping[str, Any]) -> Config:
    """The recipe, or chain of recipes, whose ``to_data`` wrote this.

    Raises:
        CheckpointError: the data are of no known recipe.
    """
    name = data.get("config") if isinstance(data, Mapping) else data
    if not isinstance(name, str) or name not in RECIPES:
        raise CheckpointError(
            f"The recipe {name!r} is not known; import the module that registers it, or update lazyneuron."
        )
    return RECIPES[name].from_data(data)


def check_recipe(config: Any) -> None:
    """Refuse what is no recipe, or one that could not be loaded again.

    Raises:
        ConfigError: it is not of a registered class.
    """
    if not isinstance(config, Config):
        known = ", ".join(name for name in RECIPES if name != "Chain")
        raise ConfigError(
            f"A recipe is a {known} or a Chain of them, got {described(config)}; pass one, such as lazyneuron.Relufy()."
        )
    if RECIPES.get(type(config).__name__) is not type(config):
        raise ConfigError(f"{type(config).__name__} could not be loaded again; decorate it with register_recipe.")


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


def propose(model: nn.Module, recipe: Recipe, *, blocks: Sequence[MLPBlock] | None) -> tuple[Plan, dict[str, MLPBlock]]:
    """The plan of one recipe, and the blocks by name: these, or all that the model has.

    Raises:
        NoBlocksError: the model has no MLP block.
        ConfigError: the recipe's ``blocks`` are no patterns, or ``blocks`` are not this model's.
    """
    check_patterns(recipe.blocks)
    found = found_in(model, blocks)
    named = {block.name: block for block in found.blocks}
    unmatched = [p for p in recipe.blocks if not any(fnmatchcase(name, p) for name in named)]
    unmatched += [name for name in recipe.names() if name not in named]
    changes = [_judge(model, recipe, block, found.blocks) for block in found.blocks]
    changes += [BlockChange(block=r.name, action="skipped", reason=r.reason) for r in found.rejected]
    return Plan(changes=tuple(changes), unmatched=tuple(unmatched)), named


def _judge(model: nn.Module, recipe: Recipe, block: MLPBlock, blocks: Sequence[MLPBlock]) -> BlockChange:
    reason: str | None = "No pattern matches its name."
    if any(fnmatchcase(block.name, pattern) for pattern in recipe.blocks):
        reason = recipe.refuses(model, block, blocks=blocks)
    return BlockChange(
        block=block.name,
        action="replaced" if reason is None else "skipped",
        reason=recipe.describes(model, block) if reason is None else reason,
        details=recipe.details(block, replaced=reason is None),
    )
