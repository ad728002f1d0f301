"""The public list changes only on purpose, and every name on it exists and is documented."""

import ast
import importlib
import inspect

import pytest

from tests.house.public_names import CHECKED_IN, listed, package_of, public_names
from tests.house.rooms import PACKAGE

INITS = sorted(PACKAGE.rglob("__init__.py"))


def test_public_names_are_the_reviewed_ones():
    assert public_names() == CHECKED_IN.read_text().split(), "run `python -m tests.house.public_names` and review it"


@pytest.mark.parametrize("path", INITS, ids=package_of)
def test_an_init_lists_names_and_does_nothing_else(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    imported = set()
    for node in tree.body[1:]:
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name for alias in node.names if node.module != "__future__"}
        else:
            assert isinstance(node, ast.Assign) and {t.id for t in node.targets} <= {"__all__", "__version__"}
    names = listed(path)
    assert len(names) == len(set(names))
    assert {name for name in names if name != "__version__"} == imported


@pytest.mark.parametrize("name", CHECKED_IN.read_text().split())
def test_a_public_name_exists_and_says_what_it_is(name):
    package, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(package), attribute)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert thing.__doc__
