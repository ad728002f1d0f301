"""Several recipes as one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lazyneuron.core.errors import ConfigError

if TYPE_CHECKING:
    from lazyneuron.induce.sparsify import Recipe


@dataclasses.dataclass(frozen=True)
class Chain:
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

    def to_data(self) -> dict[str, Any]:
        """JSON-able arguments."""
        return {"config": "Chain", "recipes": [recipe.to_data() for recipe in self.recipes]}
