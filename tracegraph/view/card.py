"""A value on a card, for a notebook and for a terminal: facts, texts, differences, tables, curves.

A card knows no parameters and no optimizers: whoever has something to show says it in these parts.
Words are escaped for HTML, and made plain for a terminal.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from tracegraph.view.plain import one_line, plain, shorten

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Card", "Difference", "Facts", "Part", "Spark", "Table", "Words", "sparkline"]

_TEXT, _CELL, _ROWS = 4_000, 120, 100
_BARS = "▁▂▃▄▅▆▇█"
_DIFF = {  # for a terminal; for a page, whose letters may be dark or light
    "+": ("green", "background:rgba(0,150,90,.2)"), "-": ("red", "background:rgba(220,70,0,.2)"),
    "@": ("cyan", "opacity:.7"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with what is to be said of each."""

    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Words:
    """A text under a heading."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A text before and after, to be shown line by line."""

    heading: str
    before: str
    after: str

    def lines(self) -> list[str]:
        """The lines that differ, with two around them, in the form of a unified diff."""
        before = plain(shorten(self.before, _TEXT)).splitlines()
        after = plain(shorten(self.after, _TEXT)).splitlines()
        return list(difflib.unified_diff(before, after, n=2, lineterm=""))[2:]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of words under titles."""

    heading: str
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Spark:
    """Numbers in order, as a small curve."""

    heading: str
    values: Sequence[float]


Part = Facts | Words | Difference | Table | Spark


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Numbers as a row of at most `width` bars; what is not finite is a space.

    >>> sparkline([0, 1, 2, 3]), sparkline([5, 5])
    ('▁▃▆█', '▁▁')
    """
    step = max(1, math.ceil(len(values) / width))
    taken = [*values[::-1][::step]][::-1]  # the last one is among them
    finite = [value / 2 for value in taken if math.isfinite(value)]  # halves: no span overflows
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span, top = (high - low) or 1.0, len(_BARS) - 1
    return "".join(
        _BARS[round((value / 2 - low) / span * top)] if math.isfinite(value) else " "
        for value in taken
    )


@dataclass(frozen=True, slots=True)
class Card:
    """A title and parts; `html` is for notebooks, and rich prints a card in colour.

    >>> card = Card("<prompt>", (Facts({"kind": "text"}), Difference("value", "kind", "brief")))
    >>> "&lt;prompt&gt;" in card.html()
    True
    """

    title: str
    parts: tuple[Part, ...] = ()

    def html(self) -> str:
        """The card as a piece of HTML without any script."""
        inside = "".join(piece for part in self.parts for piece in _html(part))
        return (
            '<div style="font:13px/1.45 system-ui,sans-serif;border:1px solid #8a94a3;'
            'border-radius:8px;padding:10px 14px;margin:4px 0;max-width:860px">'
            f"<b>{_safe(self.title)}</b>{inside}</div>"
        )

    def bundle(self, text: str) -> dict[str, str]:
        """What a notebook is given: `text` for those that show only text, and the HTML."""
        return {"text/plain": text, "text/html": self.html()}

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        parts = [piece for part in self.parts for piece in _rich(part)]
        return Panel(
            Group(*parts), title=Text(one_line(shorten(self.title, _CELL))), title_align="left"
        )


def _safe(text: str, limit: int = _TEXT) -> str:
    return escape(plain(shorten(text, limit)))


def _html(part: Part) -> Iterator[str]:
    pre = '<pre style="white-space:pre-wrap;margin:2px 0;max-height:320px;overflow:auto">'
    if not isinstance(part, Facts):
        yield f'<div style="opacity:.7;margin-top:8px">{_safe(part.heading, _CELL)}</div>'
    match part:
        case Facts(facts):
            rows = "".join(
                f'<tr><td style="text-align:left;opacity:.7">{_safe(name, _CELL)}</td>'
                f'<td style="text-align:left">{_safe(said)}</td></tr>'
                for name, said in facts.items()
            )
            yield f"<table>{rows}</table>"
        case Words(_, text):
            yield f"{pre}{_safe(text)}</pre>"
        case Difference():
            yield pre
            for line in part.lines():
                style = _DIFF.get(line[:1], ("", ""))[1]
                style = f' style="{style}"' if style else ""
                yield f"<span{style}>{escape(line)}</span>\n"
            yield "</pre>"
        case Table(_, titles, rows):
            head = "".join(f'<th style="text-align:left">{_safe(t, _CELL)}</th>' for t in titles)
            body = "".join(
                "<tr>"
                + "".join(f'<td style="text-align:left">{_safe(cell, _CELL)}</td>' for cell in row)
                + "</tr>"
                for row in rows[:_ROWS]
            )
            yield f"<table><tr>{head}</tr>{body}</table>{escape(_more(rows))}"
        case Spark(_, values):
            ends = f"{values[0]:.4g} … {values[-1]:.4g}" if values else "nothing"
            yield f'<span style="font-family:monospace">{sparkline(values)}</span> {ends}'


def _rich(part: Part) -> Iterator[RenderableType]:
    from rich.table import Table as Grid
    from rich.text import Text

    if not isinstance(part, Facts):
        yield Text(one_line(shorten(part.heading, _CELL)), style="bold")
    match part:
        case Facts(facts):
            grid = Grid.grid(padding=(0, 2))
            for name, said in facts.items():
                grid.add_row(Text(plain(name), style="dim"), Text(one_line(shorten(said, _TEXT))))
            yield grid
        case Words(_, text):
            yield Text(plain(shorten(text, _TEXT)))
        case Difference():
            for line in part.lines():
                yield Text(line, style=_DIFF.get(line[:1], ("", ""))[0])
        case Table(_, titles, rows):
            grid = Grid(*map(one_line, titles))
            for row in rows[:_ROWS]:
                grid.add_row(*(Text(one_line(shorten(cell, _CELL))) for cell in row))
            yield grid
            if len(rows) > _ROWS:
                yield Text(_more(rows), style="dim")
        case Spark(_, values):
            ends = f"  {values[0]:.4g} … {values[-1]:.4g}" if values else "nothing"
            yield Text(sparkline(values) + ends)


def _more(rows: Sequence[Sequence[str]]) -> str:
    return f"and {len(rows) - _ROWS:,} more" if len(rows) > _ROWS else ""
