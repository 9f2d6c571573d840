"""How kept runs look in a terminal (rich) and in a notebook: tables, the words of others made safe.

A notebook gets HTML in which everything that came from a model or a user is escaped.
"""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import Any

from tracegraph.view.plain import one_line

__all__ = ["html_table", "money", "number", "rich_table", "runs_rows", "sparkline", "steps_rows",
           "when"]  # fmt: skip

Rows = tuple[list[str], list[list[str]]]
_BARS = "▁▂▃▄▅▆▇█"
_NOTE = 60
_WIDEST = 60


def runs_rows(runs: Sequence[Any]) -> Rows:
    """Titles and a row for each run."""
    rows = []
    for run in runs:
        facts = run.summary
        rows.append([
            str(run.id), one_line(run.name), run.status, when(run.created), str(facts["steps"]),
            number(facts["best_score"]), money(facts["cost"]),
        ])  # fmt: skip
    return ["run", "name", "status", "began", "steps", "best", "cost"], rows


def steps_rows(steps: Sequence[Any]) -> Rows:
    """Titles and a row for each step."""
    return (
        ["step", "score", "changes", "rejected", "seconds", "cost", "note"],
        [
            [str(s.number), number(s.score), str(s.changes), str(s.rejections), number(s.seconds),
             money(s.cost), one_line(s.note)[:_NOTE]]
            for s in steps
        ],
    )  # fmt: skip


def rich_table(title: str, rows: Rows) -> Any:
    """A table of `rich`; nothing in it is read as markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(one_line(title)), title_justify="left")
    for name in rows[0]:
        table.add_column(name)
    for row in rows[1]:
        table.add_row(*map(Text, row))
    return table


def html_table(title: str, rows: Rows) -> str:
    """A table as HTML; everything in it is escaped."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows[1])
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<table><caption>{html.escape(one_line(title))}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def sparkline(values: Sequence[float | None]) -> str:
    """Numbers as a line of bars, of at most 60 columns; what is unknown is a space.

    >>> sparkline([0, 1, None, 2, 3])
    '▁▃ ▆█'
    """
    shown = list(values)
    if len(shown) > _WIDEST:
        size = len(shown) / _WIDEST
        shown = [shown[int(column * size)] for column in range(_WIDEST)]
    known = [v for v in shown if v is not None and abs(v) != float("inf") and v == v]
    low, span = min(known, default=0.0), (max(known, default=0.0) - min(known, default=0.0)) or 1.0
    return "".join(
        _BARS[round((v - low) / span * (len(_BARS) - 1))]
        if v is not None and abs(v) != float("inf") and v == v
        else " "
        for v in shown
    )


def when(seconds: float) -> str:
    """A moment, in local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def number(value: float | None) -> str:
    """A number in four digits; nothing for ``None``."""
    return "" if value is None else f"{value:.4g}"


def money(value: float | None) -> str:
    """Dollars; nothing for ``None``."""
    return "" if value is None else f"${value:.4f}"
