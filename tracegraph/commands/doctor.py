"""``tracegraph doctor``: what is installed and set, and whether it works."""

from __future__ import annotations

from typing import Annotated

import typer

from tracegraph.commands.options import AsJson, Store
from tracegraph.commands.printing import as_json
from tracegraph.commands.waiting import waiting
from tracegraph.view.plain import one_line

__all__ = ["doctor"]


def doctor(
    model: Annotated[
        str | None,
        typer.Option("--model", "--live", help="Ask this model one short question."),
    ] = None,
    store: Store = None,
    in_json: AsJson = False,
) -> None:
    """Say what is installed, which walls the sandbox has, which devices and keys there are.

    Ends with 1 when something that was tried does not work.
    """
    from tracegraph.doctor import examined, faults

    with waiting("looking"):
        found = examined(store, model)
    if in_json:
        as_json(found)
    else:
        for title, facts in found.items():
            typer.echo(title)
            for name, said in facts.items():
                typer.echo(f"  {name:<24} {one_line(str(said))}")
    if faults(found):
        raise typer.Exit(1)
