"""What the files of the project may be and say."""

import re

import pytest

from tests.house.rooms import PACKAGE, ROOT

TEXT = {".py", ".cpp", ".h", ".md", ".toml", ".yml", ".yaml", ".cff", ".txt", ".json", ".j2", ".css", ".js", ".in", ""}
PLACES = ["src", "csrc", "tests", "docs", "examples", "scripts", ".ci", "requirements"]
# written in pieces, so that this file does not hold what it looks for
FORBIDDEN = {
    "a path of one machine": re.compile("|".join(["/" + "work/", "/" + "root/", "/" + r"home/\w", "/" + "tmp/h/"])),
    "how the project is made": re.compile(r"\b" + "ag" + r"ents?\b|\bissue #?\d", re.IGNORECASE),
    "a package host": re.compile("|".join(["pypi" + r"\.org", "python" + "hosted", r"download\." + "pytorch"])),
}


def project_files():
    named = [p for p in ROOT.iterdir() if p.is_file() and p.name not in (".git", ".gitignore")]
    nested = [p for place in PLACES for p in (ROOT / place).rglob("*") if p.is_file()]
    return [p for p in named + nested if p.suffix in TEXT and "__pycache__" not in p.parts and p.name != "LICENSE"]


def test_the_project_speaks_of_itself_alone():
    wrong = []
    for path in project_files():
        text = path.read_text(encoding="utf-8")
        wrong += [f"{path.relative_to(ROOT)}: {why}" for why, pattern in FORBIDDEN.items() if pattern.search(text)]
    assert not wrong


@pytest.mark.parametrize(
    "planted", ["see /" + "work/x", "an ag" + "ent", "Issue " + "12", "https://pypi." + "org/simple"]
)
def test_the_patterns_see_a_planted_fault(planted):
    assert any(pattern.search(planted) for pattern in FORBIDDEN.values())


def test_files_stay_readable():
    limits = {".py": 500, ".cpp": 700, ".h": 700}
    files = [p for p in (*PACKAGE.rglob("*"), *(ROOT / "csrc").glob("*")) if p.suffix in limits]
    assert len(files) > 10
    too_long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > limits[p.suffix]}
    assert not too_long


def test_files_are_named_for_what_they_hold():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [p for p in PACKAGE.rglob("*.py") if p.stem in vague or p.parent.name in vague]


def test_contributing_stays_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 150
