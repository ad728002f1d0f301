"""The documentation names what exists."""

import re

import pytest
import yaml
from typer.main import get_command

from lazyneuron.cli.main import app
from tests.house.rooms import PACKAGE, ROOT

DOCS = ROOT / "docs"
COMMANDS = get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name):
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in text
    for parameter in COMMANDS[name].params:
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert f"`{option}" in text, f"{name} {option}"


def pages_of(entries):
    for entry in entries:
        for found in entry.values():
            yield from [found] if isinstance(found, str) else pages_of(found)


def test_every_page_is_in_the_navigation():
    listed = set(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_every_room_with_public_names_is_in_the_reference():
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py") if "__all__" in path.read_text()}
    assert rooms
    assert {room for room in rooms if f"::: lazyneuron.{room}" not in reference} == set()


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))])
def test_local_links_lead_somewhere(path):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [t for t in targets if not (path.parent / t).exists()] == []


def code_lines(path):
    for block in re.findall(
        r"^```(?:python|console)\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        yield from block.splitlines()


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.stem)
def test_comments_do_not_run_out_of_their_block(path):
    """76 characters is what a block holds on a laptop; a comment that needs more stands above its line."""
    assert [line for line in code_lines(path) if re.search(r"\S  +# ", line) and len(line) > 76] == []
