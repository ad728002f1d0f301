"""The documentation's table says what is found."""

from tests.blocks.table import MARKED, PAGE, table


def test_the_page_says_what_is_found():
    (written,) = MARKED.finditer(PAGE.read_text(encoding="utf-8"))
    assert written[0] == written[1] + table() + written[2], "run python -m tests.blocks.table"
