"""What commands show: on a terminal, in a pipe, with names that look like markup."""

import pytest

from lazyneuron.cli.screen import print_lines, print_notes, print_table, progress_bar, status, watched

ROWS = [{"block": "[bold]layer[/bold] :smile:", "why": "so " * 60 + "end"}]


def test_a_pipe_gets_a_table_of_any_width_with_names_as_they_are(capsys):
    print_table("A [title]", ROWS)
    title, header, row, empty = capsys.readouterr().out.splitlines()
    assert title == "A [title]" and empty == "" and header.split() == ["block", "why"]
    assert row.startswith("[bold]layer[/bold] :smile:  so so") and row.endswith("end")


def test_a_terminal_gets_a_table_that_fits(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_table(None, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4 and "[bold]" in "".join(lines)


def test_lines_and_notes_are_neither_cut_nor_interpreted(capsys):
    print_lines("one " * 50 + "[red]")
    print_notes(["[1] a note"])
    assert capsys.readouterr().out == "one " * 50 + "[red]\n[1] a note\n"


def test_progress_leaves_standard_output_alone_and_says_nothing_in_a_pipe(capsys):
    with progress_bar("Training [a]") as advance:
        advance(0.5, "half [b")
    assert list(watched([3, 1, 2], "Measuring")) == [3, 1, 2]
    with status("Loading [x]") as tell:
        tell("Timing [y]")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_shows_what_is_going_on(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress_bar("Training [a]") as advance:
        advance(0.5, "half [b")
    out, err = capsys.readouterr()
    assert not out and "half [b" in err


def test_an_error_inside_a_bar_comes_through():
    with pytest.raises(ZeroDivisionError), progress_bar("Training"):
        raise ZeroDivisionError
