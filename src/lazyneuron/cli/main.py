"""The ``lazyneuron`` command and what is common to its sub-commands: errors, Ctrl-C, ``--debug``.

A sub-command is one function in the file of the same name. These files import nothing heavy at their top, so that
``lazyneuron --help`` answers at once; a function imports the rooms it calls.
"""

from __future__ import annotations

import itertools
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lazyneuron import __version__
from lazyneuron.cli.accelerate import accelerate
from lazyneuron.cli.bench import bench
from lazyneuron.cli.demo import demo
from lazyneuron.cli.doctor import doctor
from lazyneuron.cli.explain import explain
from lazyneuron.cli.export import export
from lazyneuron.cli.generate import generate
from lazyneuron.cli.interrupted import INTERRUPTED, end_interrupted
from lazyneuron.cli.learn import learn
from lazyneuron.cli.measure import measure
from lazyneuron.cli.reproduce import reproduce
from lazyneuron.cli.route import route
from lazyneuron.cli.sparsify import sparsify
from lazyneuron.cli.sweep import sweep
from lazyneuron.core.errors import LazyNeuronError

_COMMANDS = {
    command.__name__: command
    for command in (
        accelerate,
        bench,
        demo,
        doctor,
        explain,
        export,
        generate,
        learn,
        measure,
        reproduce,
        route,
        sparsify,
        sweep,
    )
}


class _Commands(TyperGroup):
    """Turns the errors that lazyneuron raises on purpose into one sentence and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LazyNeuronError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(str(error), err=True)
            raise typer.Exit(2) from error
        except PermissionError as error:
            if ctx.params.get("debug"):
                raise
            what = "a file" if error.filename is None else error.filename
            typer.echo(
                f"No permission for {what}; name one that you may read, or a folder that you can write.", err=True
            )
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; also after the command.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Run only the neurons that fire: measure, induce and exactly exploit activation sparsity."""


for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command line; exits with 0, 1 (a fault of ours), 2 (bad input) or 130 (Ctrl-C)."""
    arguments = _debug_first(sys.argv[1:])
    try:
        status = app(arguments, prog_name="lazyneuron", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        end_interrupted()
    except Exception as error:
        if hasattr(error, "format_message"):  # of typer or click, whichever parses: a wrong command line
            _print_usage_error(error, arguments)
            sys.exit(2)
        if arguments[:1] == ["--debug"]:
            raise
        name = type(error).__name__
        typer.echo(f"Unexpected {name}: {error}. This is a fault in lazyneuron; --debug shows where.", err=True)
        sys.exit(1)
    if status == INTERRUPTED:  # typer takes Ctrl-C as an exit without a word
        end_interrupted()
    sys.exit(status if isinstance(status, int) else 0)


def _print_usage_error(error: Any, arguments: list[str]) -> None:
    """One sentence, and where the options are listed; a call without a command gets the help itself."""
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)
        return
    said = " ".join(error.format_message().split()).rstrip(".")
    names = getattr(getattr(error, "param", None), "opts", ())
    for name, value in itertools.pairwise(arguments):
        if name in names:
            said += f", got {value!r}"
            break
    command = " ".join(["lazyneuron", *[a for a in arguments if a in _COMMANDS][:1]])
    typer.echo(f"{said}; see `{command} --help`.", err=True)


def _debug_first(arguments: list[str]) -> list[str]:
    """Accept ``--debug`` also after the sub-command."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [a for a in arguments[:end] if a != "--debug"]
    return [*(["--debug"] if len(options) < end else []), *options, *arguments[end:]]
