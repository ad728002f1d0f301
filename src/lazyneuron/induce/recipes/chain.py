"""Several recipes as one."""

from __future__ import annotations

import dataclasses

from lazyneuron.core.errors import ConfigError
from lazyneuron.induce.recipe import Config, Recipe, check_recipe, register_recipe


@register_recipe
@dataclasses.dataclass(frozen=True)
class Chain(Config):
    """Recipes that ``sparsify_`` applies one after another, all of them or none, with one receipt.

    Attributes:
        recipes: in order, at least two; each sees the model as the ones before have left it.
    """

    recipes: tuple[Recipe, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.recipes, tuple) or len(self.recipes) < 2:
            raise ConfigError(f"A chain is a tuple of at least two recipes, got {self.recipes!r}.")
        if any(isinstance(recipe, Chain) for recipe in self.recipes):
            raise ConfigError("A chain holds no chains; put their recipes in one tuple.")
        for recipe in self.recipes:
            check_recipe(recipe)

    @property
    def steps(self) -> tuple[Recipe, ...]:
        """The recipes."""
        return self.recipes

    def with_steps(self, steps: tuple[Recipe, ...]) -> Chain:
        """A chain of these."""
        return Chain(steps)
