"""What commands print: JSON, tables, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from tracegraph.kinds import show

__all__ = ["as_json", "difference_facts", "shown", "table", "write"]


def as_json(value: Any) -> None:
    """Print `value` as JSON; what JSON has no word for as text."""
    typer.echo(json.dumps(value, indent=1, default=str))


def table(titles: list[str], rows: list[list[str]]) -> None:
    """Print columns as wide as their longest cell; the last one is not padded."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in [titles, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        typer.echo("  ".join(cells).rstrip())


def write(text: str, output: str | None) -> None:
    """Write a text to a file and say which, or print it."""
    if output is None:
        typer.echo(text, nl=False)
        return
    Path(output).write_text(text, encoding="utf-8", errors="surrogatepass")
    typer.echo(output)


def shown(value: Any) -> str:
    """A value as text."""
    return value if isinstance(value, str) else show(value, 2_000)


def difference_facts(difference: Any) -> dict[str, Any]:
    """A `tracegraph.history.Difference` as JSON-able data."""
    return {
        "name": difference.name, "before": shown(difference.before),
        "after": shown(difference.after), "diff": difference.text,
    }  # fmt: skip
