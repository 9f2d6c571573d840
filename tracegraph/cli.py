"""The command ``tracegraph``: which commands there are, and what happens when one fails.

A command is a row of a table; its module is imported when it is called, so that ``--help`` and shell
completion read none. Nothing of ``optimizers`` is known here but the name of such a module.

Exit codes: 0 when it worked, 1 when it did not and the message says why, 2 for a wrong command line,
3 when there is no such run or history, 4 when a replay differs from its run, 130 after Ctrl-C.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, Final, NamedTuple

import typer
import typer.core
import typer.main

from tracegraph.errors import NoSuchRun, TracegraphError

__all__ = ["COMMANDS", "Row", "app", "main"]


class Row(NamedTuple):
    """A command: its name, its help in one line, where it is, and a command line that shows it.

    `target` is ``module:name`` of a function that typer understands, or of a ``typer.Typer``.
    """

    name: str
    help: str
    target: str
    example: str


COMMANDS: Final = (
    Row("demo", "Watch two prompts and a function improve, without a key.",
        "optimizers.demo.command:demo", "demo --seed 1"),
    Row("runs", "List, show, compare, diff, export and prune runs.",
        "tracegraph.commands.runs:app", "runs show first-try --step 3"),
    Row("view", "Show a run as a page to click through.",
        "tracegraph.commands.view:view", "view first-try --step 3 -o graph.svg"),
    Row("export", "Write a run for other tools: JSON, CSV, MLflow, ...",
        "tracegraph.commands.export:export", "export first-try --format csv -o steps.csv"),
    Row("resume", "Go on with a run where it stopped.",
        "tracegraph.commands.again:resume", "resume first-try --dry-run"),
    Row("replay", "Run it again with the replies of then; costs nothing.",
        "tracegraph.commands.again:replay", "replay first-try"),
    Row("doctor", "Say what is installed, what is set and what works.",
        "tracegraph.commands.doctor:doctor", "doctor --model gpt-4o-mini"),
)  # fmt: skip

_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}


class _Later(typer.core.TyperCommand):
    """A command that is loaded when it is called."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.name, help=row.help)
        self._row = row

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        return _loaded(self._row).make_context(info_name, args, parent=parent, **extra)


def _loaded(row: Row) -> Any:
    module, _, name = row.target.partition(":")
    found = getattr(importlib.import_module(module), name)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(
        add_completion=False, context_settings=_SETTINGS, rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )  # fmt: skip
    alone.command(row.name, epilog=f"Example: tracegraph {row.example}")(found)
    return typer.main.get_command(alone)


class _Group(typer.core.TyperGroup):
    """The table as a group of commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for row in COMMANDS:
            self.add_command(_Later(row))


app = typer.Typer(
    cls=_Group, help="Look at kept runs, compare, draw and export them; start them again.",
    epilog="Example: tracegraph runs list", context_settings=_SETTINGS, no_args_is_help=True,
    rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors; may stand anywhere.")
    ] = False,
) -> None:
    """Options before the command; `main` reads ``--debug`` itself."""


def main() -> None:
    """Run the command line; errors are one line on stderr."""
    words = sys.argv[1:]
    debug = "--debug" in words
    try:
        app([word for word in words if word != "--debug"], prog_name="tracegraph")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        sys.exit(_said(error))


def _said(error: Exception) -> int:
    """Say in one line what went wrong; gives the exit code."""
    from tracegraph.view.plain import one_line

    expected = isinstance(error, TracegraphError | OSError)
    known = "" if expected else f"{type(error).__name__}: "
    more = "" if expected else " (this should not happen; --debug shows where)"
    typer.echo(f"error: {known}{one_line(str(error))}{more}", err=True)
    return 3 if isinstance(error, NoSuchRun) else 1
