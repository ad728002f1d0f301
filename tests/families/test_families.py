"""All families by all verbs: every cell is what happens, and the page says the same."""

import re

import pytest

from tests.families.families import NAMES, SLOW
from tests.families.table import MARKED, PAGE, markdown
from tests.families.verbs import LIMIT, row

VERBS = ["find", "measure", "sparsify", "accelerate", "generate", "save", "reload", "restore"]
EACH = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NAMES]
EXPERTS = ("mixtral", "olmoe", "qwen3_moe", "gpt_oss", "phimoe", "qwen2_moe", "deepseek")


@pytest.mark.filterwarnings("ignore")  # other libraries' own
@pytest.mark.parametrize("name", EACH)
def test_every_verb_and_the_page(name, one_thread):
    found = row(name)
    assert list(found.cells) == VERBS
    assert set(found.cells.values()) - {found.cells["find"]} <= {"ok", "after sparsify", "refused", "-"}
    assert found.why or "refused" not in str(found.cells)
    if name in EXPERTS:
        assert "experts in batched weights" in found.why
    (table,) = MARKED.finditer(PAGE.read_text(encoding="utf-8"))
    assert markdown(found) in table[0].splitlines(), "run python -m tests.families.table"


def test_the_page_has_a_line_for_every_family():
    (table,) = MARKED.finditer(PAGE.read_text(encoding="utf-8"))
    assert len(table[0].splitlines()) == len(NAMES) + 4


def test_the_readme_quotes_the_figure_of_the_page():
    figure = re.search(r"over these (\d+) models was (\S+) of the largest output", PAGE.read_text(encoding="utf-8"))
    assert figure is not None and int(figure[1]) == len(NAMES) and float(figure[2]) <= LIMIT
    readme = " ".join((PAGE.parents[1] / "README.md").read_text(encoding="utf-8").split())
    assert f"{figure[2]} of the largest output over {figure[1]} architectures" in readme
