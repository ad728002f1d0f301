"""The public names: what every ``__init__.py`` lists. Run ``python -m tests.house.public_names`` to accept a change."""

import ast
from pathlib import Path

from tests.house.rooms import PACKAGE

CHECKED_IN = Path(__file__).with_name("public_names.txt")


def listed(path: Path) -> list[str]:
    """The names in a file's ``__all__``, read without importing it."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


def package_of(path: Path) -> str:
    """The dotted name of the package whose ``__init__.py`` this is."""
    return ".".join(["lazyneuron", *path.relative_to(PACKAGE).parent.parts])


def public_names() -> list[str]:
    """All public names with their package, sorted."""
    return sorted(f"{package_of(path)}.{name}" for path in PACKAGE.rglob("__init__.py") for name in listed(path))


if __name__ == "__main__":
    CHECKED_IN.write_text("".join(f"{name}\n" for name in public_names()))
