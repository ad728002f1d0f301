"""How the command ends on Ctrl-C; imports nothing heavy, since Ctrl-C may come before anything is imported."""

import sys
from typing import NoReturn

INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C ended


def end_interrupted() -> NoReturn:
    """End the process with one sentence."""
    sys.stderr.write("Interrupted; nothing was left half-written.\n")
    # CPython keeps in mind an interrupt that passed through an exec, until the next one, and would end by the signal
    exec("")
    sys.exit(INTERRUPTED)
