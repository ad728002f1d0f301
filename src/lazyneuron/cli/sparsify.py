"""``lazyneuron sparsify``: apply a recipe to a model and save it with its receipt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer

from lazyneuron.cli.options import AllowPickle, Batches, BatchSize, JsonFile, Model, ModelFolder

if TYPE_CHECKING:
    from lazyneuron.core.receipt import Receipt
    from lazyneuron.induce.recipe import Config, Plan, Recipe


def sparsify(
    model: Model,
    *,
    recipe: Annotated[
        list[str],
        typer.Option(
            "--recipe",
            help="relufy, threshold, ... or your package.module:Name; several are a chain.",
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A field of one of the recipes: name=value, as in JSON.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Inputs that threshold is calibrated on, as for measure.")
    ] = None,
    batches: Batches = 8,
    batch_size: BatchSize = 16,
    out: ModelFolder = None,
    json_file: JsonFile = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Change a model by a recipe, so that its neurons can fall silent; without --out and --json only say how."""
    from lazyneuron.cli.inputs import load_inputs
    from lazyneuron.cli.output import check_writable, write_record
    from lazyneuron.cli.saved import save_folder
    from lazyneuron.cli.screen import print_lines, status
    from lazyneuron.induce.sparsify import plan, sparsify_

    config = make_recipe(recipe, settings or [])
    check_writable(json_file, folder=out)
    loaded, items = load_inputs(model, data, batches=batches, batch_size=batch_size, allow_pickle=allow_pickle, out=out)
    if out is None and json_file is None:
        _print(plan(loaded.model, config))
        print_lines("Nothing was changed; --out saves a changed model.")
        return
    with status("Applying the recipe"):
        receipt = sparsify_(loaded.model, config, batches=items or None)
    _print(receipt)
    write_record(json_file, receipt)
    if out is not None:
        print_lines(f"Saved to {out}; read it as {save_folder(loaded, out)}")


def make_recipe(names: list[str], settings: list[str]) -> Config:
    """The recipe, or the chain of recipes, that the options describe.

    Args:
        names: of recipes.
        settings: ``field=value``, for the one recipe named that has such a field.

    Raises:
        ConfigError: an unknown recipe or field, a field of several recipes, or a value out of range.
    """
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.induce import Chain
    from lazyneuron.induce.recipe_data import field_types

    kinds: dict[str, type[Any]] = {}
    for name in names:
        if name in kinds:
            raise ConfigError(f"The recipe {name!r} is given twice; name each once.")
        kinds[name] = _kind(name)
    fields = {name: field_types(kind) for name, kind in kinds.items()}
    arguments: dict[str, dict[str, Any]] = {name: {} for name in names}
    for setting in settings:
        field, equals, value = setting.partition("=")
        owners = [name for name in names if field in fields[name]]
        if not equals or len(owners) != 1:
            said = "; ".join(f"{name} has {', '.join(known)}" for name, known in fields.items())
            raise ConfigError(f"--set takes field=value with a field of one of the recipes, got {setting!r}; {said}.")
        arguments[owners[0]][field] = _value(fields[owners[0]][field], field, value)
    try:
        recipes = tuple(kinds[name](**given) for name, given in arguments.items())
    except TypeError as error:
        raise ConfigError(f"A recipe lacks a field or got a value of the wrong kind ({error}); see --set.") from error
    return recipes[0] if len(recipes) == 1 else Chain(recipes)


def _kind(name: str) -> type[Recipe]:
    """The recipe of a name on the command line, or the one that ``package.module:Name`` holds."""
    from lazyneuron.cli.model import imported
    from lazyneuron.core.errors import ConfigError
    from lazyneuron.induce.recipe import RECIPES, Recipe

    spelled = {re.sub(r"(?<=[a-z])(?=[A-Z])", "-", n).lower(): k for n, k in RECIPES.items() if issubclass(k, Recipe)}
    kind = imported(name, what="a recipe that register_recipe decorates") if ":" in name else spelled.get(name)
    if kind is None or kind not in RECIPES.values():
        known = ", ".join(sorted(spelled))
        raise ConfigError(f"The recipe {name!r} is not known; there are {known}, and your own as package.module:Name.")
    found: type[Recipe] = kind
    return found


def _value(kind: Any, field: str, text: str) -> Any:
    """A field's value from the command line, by the type that the recipe declares for it."""
    from lazyneuron.blocks import Activation
    from lazyneuron.core.errors import MALFORMED, ConfigError, said
    from lazyneuron.induce.recipe import recipe_from_data
    from lazyneuron.induce.recipe_data import field_from_data

    try:
        value = json.loads(text)
    except ValueError:
        value = text
    origin = get_origin(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        raise ConfigError(f"--set cannot give {field!r}; use lazyneuron.sparsify_ for that.")
    if kind is Activation or origin is tuple:
        value = value if isinstance(value, list) else [value if kind is Activation else str(value)]
    try:
        return field_from_data(kind, value, recipe=recipe_from_data)
    except MALFORMED as error:
        raise ConfigError(f"--set {field}={text} gives no value for {field!r}: {said(error)}.") from error


def _print(result: Receipt | Plan) -> None:
    from lazyneuron.cli.screen import print_notes, print_table
    from lazyneuron.report.numbers import significant

    rows = [
        {
            "block": c.block,
            "action": c.action,
            "density": significant(c.details.get("density")),
            "error": significant(c.details.get("error")),
            "why": c.reason,
        }
        for c in result.changes
    ]
    print_table(None, rows)
    print_notes(getattr(result, "notes", ()))
