"""The public list changes only on purpose, and every name on it exists and is documented."""

import ast
import importlib
import inspect

import pytest

import lazyneuron
from tests.house.public_names import CHECKED_IN, listed, package_of, public_names
from tests.house.rooms import PACKAGE

INITS = sorted(PACKAGE.rglob("__init__.py"))


def test_public_names_are_the_reviewed_ones():
    assert public_names() == CHECKED_IN.read_text().split(), "run `python -m tests.house.public_names` and review it"


@pytest.mark.parametrize("path", INITS, ids=package_of)
def test_an_init_lists_names_and_does_nothing_else(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    imported = {}
    for node in tree.body[1:]:
        if path.parent == PACKAGE and not isinstance(node, ast.Assign):
            imported |= names_on_use(node)
        elif isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name: node.module for alias in node.names}
        else:
            assert isinstance(node, ast.Assign) and {t.id for t in node.targets} <= {"__all__", "__version__"}
    names = listed(path)
    assert len(names) == len(set(names))
    assert set(names) == set(imported)


def names_on_use(node):
    """The names that the package's own ``__init__`` imports for type checkers, and gives the homes of for use."""
    if isinstance(node, ast.If):
        assert ast.unparse(node.test) == "TYPE_CHECKING"
        homes = {alias.name: line.module for line in node.body for alias in line.names}
        assert homes == object.__getattribute__(lazyneuron, "_homes")
        return homes
    assert isinstance(node, ast.ImportFrom) or ast.unparse(node.value.func) == "import_on_use"
    return {}


@pytest.mark.parametrize("name", CHECKED_IN.read_text().split())
def test_a_public_name_exists_and_says_what_it_is(name):
    package, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(package), attribute)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert thing.__doc__
