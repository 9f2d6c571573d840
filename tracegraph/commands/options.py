"""The options that several commands take, and the history that they name."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from tracegraph.commands.waiting import waiting
from tracegraph.history import History

__all__ = ["AsJson", "Output", "RunName", "Store", "history"]

Store: TypeAlias = Annotated[
    str | None,
    typer.Option("--store", help="A directory or *.sqlite file; .tracegraph by default."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help="Its number or its name.")]
Output: TypeAlias = Annotated[
    str | None, typer.Option("--output", "-o", help="A file; else the screen.")
]


def history(store: str | None) -> History:
    """The history that ``--store`` names."""
    with waiting("opening the history"):  # another program may have locked it for a while
        return History(store)
