"""Replace parts of a text by where its syntax tree says they are.

Python counts lines as ``\\n``, ``\\r`` and ``\\r\\n`` end them, and columns in bytes; so does this.
"""

from __future__ import annotations

import ast
import functools
import io
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

__all__ = ["Span", "lines_of", "offset", "replaced", "span"]


class Span(NamedTuple):
    """Bytes of a text, from `start` to `end`, and what shall stand there."""

    start: int
    end: int
    new: str


def lines_of(text: str, *, ends: bool = True) -> list[str]:
    """The lines of a text as Python counts them, with their ends or without.

    >>> lines_of("a\\x0cb\\r\\nc"), lines_of("a\\nb\\n", ends=False)
    (['a\\x0cb\\r\\n', 'c'], ['a', 'b'])
    """
    found = list(io.StringIO(text, newline=""))
    return found if ends else [line.rstrip("\r\n") for line in found]


def offset(text: str, line: int, column: int | None) -> int:
    """Where a column of a line (from 1) begins, in bytes; None is the start of the next line."""
    starts = _starts(text)
    if column is None:
        return starts[min(line, len(starts) - 1)]
    return starts[min(line - 1, len(starts) - 1)] + column


@functools.lru_cache(4)
def _starts(text: str) -> tuple[int, ...]:
    """Where the lines begin, and the end; asked again for every part of a tree."""
    return (0, *accumulate(map(len, text.encode().splitlines(keepends=True))))


def span(text: str, item: ast.expr | ast.stmt, new: str) -> Span:
    """The place of a part of the tree of `text`, and what shall stand there."""
    return Span(
        offset(text, item.lineno, item.col_offset),
        offset(text, item.end_lineno or 0, item.end_col_offset or 0),
        new,
    )


def replaced(text: str, spans: Iterable[Span]) -> str:
    """`text` with every span replaced; spans do not overlap.

    >>> replaced("abc", [Span(0, 1, "x"), Span(2, 3, "yy")])
    'xbyy'
    """
    data, at = text.encode(), 0
    parts = []
    for one in sorted(spans):
        parts += [data[at : one.start], one.new.encode()]
        at = one.end
    return b"".join([*parts, data[at:]]).decode()
