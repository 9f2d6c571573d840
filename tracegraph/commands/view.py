"""``tracegraph view``: a kept run as one HTML file, or one of its graphs as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracegraph.commands.options import AsJson, Output, Store, history
from tracegraph.commands.printing import as_json, write_file
from tracegraph.commands.waiting import waiting
from tracegraph.history.pages import page
from tracegraph.view import write_html

__all__ = ["view"]


def view(
    run: Annotated[
        str | None, typer.Argument(help="Its number or name; the latest if left out.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="This step only.")] = None,
    output: Output = None,
    store: Store = None,
    in_json: AsJson = False,
) -> None:
    """Show a run as a page to click through, all its steps or one; ``-o graph.svg`` draws one step."""
    kept = history(store).run(run)
    with waiting(f"drawing run {kept.id}"):
        shown = page(kept, step)
        path = Path(output or f"run-{kept.id}.html")
        if path.suffix == ".svg":
            number = step or [s.number for s in kept.steps if s.nodes][-1]
            write_file(kept.graph(number).to_svg(), str(path))
        else:
            write_html(shown, path)
    if in_json:
        as_json({"run": kept.id, "file": str(path), "bytes": path.stat().st_size})
    else:
        typer.echo(str(path))
