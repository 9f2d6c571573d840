"""What commands print: JSON, tables, and a model's or user's words made harmless for a terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import typer

from tracegraph.kinds import show
from tracegraph.view.plain import one_line, plain

__all__ = ["as_json", "difference_facts", "money", "number", "one_line", "plain", "shown", "table",
           "when", "write"]  # fmt: skip


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


def when(seconds: float) -> str:
    """A moment, in local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def number(value: float | None) -> str:
    """A number in four digits; nothing for ``None``."""
    return "" if value is None else f"{value:.4g}"


def money(value: float | None) -> str:
    """Dollars; nothing for ``None``."""
    return "" if value is None else f"${value:.4f}"
