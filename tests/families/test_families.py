"""All families by all verbs: every cell is what happens, and the page says the same."""

import pytest

from tests.families.families import NAMES, SLOW
from tests.families.table import MARKED, PAGE, markdown
from tests.families.verbs import row

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
