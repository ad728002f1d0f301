"""Running the command in this process."""

from __future__ import annotations

import sys

import pytest

from lazyneuron.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """The exit status of ``lazyneuron`` with these arguments, 0 when it returns."""
    monkeypatch.setattr(sys, "argv", ["lazyneuron", *map(str, arguments)])
    try:
        main.main()
    except SystemExit as exit_:
        return exit_.code or 0
    return 0
