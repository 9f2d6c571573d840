"""What commands print: JSON, tables, files."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Collection
from typing import Any

import typer

from tracegraph.errors import HistoryError
from tracegraph.kinds import show
from tracegraph.view.plain import fit, plain, width
from tracegraph.writing import write_whole

__all__ = [
    "as_json", "difference", "difference_facts", "lines_wide", "shown", "table", "write",
    "write_file",
]  # fmt: skip

_BETWEEN = "  "
_INKS = {"+": "green", "-": "red", "@": "cyan"}
_LEAST = 12  # cells that an elastic column keeps


def as_json(value: Any) -> None:
    """Print `value` as JSON; what JSON has no word for as text."""
    typer.echo(json.dumps(value, indent=1, default=str))


def table(titles: list[str], rows: list[list[str]], *, elastic: Collection[int] = ()) -> None:
    """Print columns as wide as their widest cell; the last one is not padded.

    Where a terminal is too narrow, the `elastic` columns are cut, the widest first; what goes
    into a file or to another program is whole.
    """
    widths = [max(map(width, column)) for column in zip(titles, *rows, strict=True)]
    over = sum(widths) + len(_BETWEEN) * (len(widths) - 1) - _room()
    while over > 0 and (wide := max((widths[at] for at in elastic), default=0)) > _LEAST:
        widest = [at for at in elastic if widths[at] == wide]
        # Down to the next in width, or as far as is needed.
        below = max((widths[at] for at in elastic if widths[at] < wide), default=0)
        step = min(-(-over // len(widest)), wide - max(below, _LEAST))
        for at in widest:
            widths[at] -= step
        over -= step * len(widest)
    for row in [titles, *rows]:
        cells = [fit(cell, wide) for cell, wide in zip(row, widths, strict=True)]
        padded = [
            cell + " " * (wide - width(cell)) for cell, wide in zip(cells, widths, strict=True)
        ]
        typer.echo(_BETWEEN.join(padded).rstrip())


def _room() -> int:
    """The cells of a line of the terminal; as good as endless where there is none."""
    return shutil.get_terminal_size((0, 0)).columns or sys.maxsize


def difference(text: str) -> None:
    """Print a unified diff: in colours on a terminal, unless ``NO_COLOR`` is set there."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for number, line in enumerate(plain(text).splitlines()):
        ink = _INKS.get(line[:1]) if coloured and number > 1 else None  # two lines name the texts
        typer.echo(typer.style(line, fg=ink) if ink else line)


def lines_wide() -> int:
    """How wide lines that can be of any width should be: as the terminal, within reason."""
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, 160))


def write(text: str, output: str | None) -> None:
    """Write a text to a file and say which, or print it.

    Raises:
        HistoryError: the file cannot be written; what was there before is still there.
    """
    if output is None:
        typer.echo(text, nl=False)
        return
    write_file(text, output)
    typer.echo(output)


def write_file(text: str, output: str) -> None:
    """Write a text to a file, all of it or nothing, see `write`."""
    try:
        write_whole(output, text.encode(errors="surrogatepass"))
    except OSError as error:
        raise HistoryError(f"{output} was not written: {error.strerror or error}") from error


def shown(value: Any) -> str:
    """A value as text."""
    return value if isinstance(value, str) else show(value, 2_000)


def difference_facts(difference: Any) -> dict[str, Any]:
    """A `tracegraph.history.Difference` as JSON-able data."""
    return {
        "name": difference.name, "before": shown(difference.before),
        "after": shown(difference.after), "diff": difference.text,
    }  # fmt: skip
