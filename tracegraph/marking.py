"""Show code with its lines numbered, and the line to blame marked; `BadSource` says it as an error."""

from __future__ import annotations

from tracegraph.spans import lines_of

__all__ = ["BadSource", "marked", "numbered"]

_MOST_NUMBERED = 20


class BadSource(ValueError):
    """A text that is no replacement for an entry; the message shows the code with the line marked.

    Attributes:
        reason: why, without the code.
        line: where, counted from 1; ``None`` where it is no one line.

    >>> print(BadSource("too wide", text="def f():\\n    return 1", line=2))
    too wide
       1 | def f():
       2 |     return 1  <--- too wide
    """

    def __init__(
        self, reason: str, *, text: str = "", line: int | None = None, mark: str = ""
    ) -> None:
        shown = "" if line is None else marked(text, line, mark or reason)
        super().__init__(f"{reason}\n{shown}" if shown else reason)
        self.reason = reason
        self.line = line if shown else None


def numbered(text: str) -> str:
    """The first lines of a text, where no one line is to blame.

    >>> print(numbered("a = 1\\nb = 2\\n"))
       1 | a = 1
       2 | b = 2
    """
    lines = lines_of(text, ends=False)
    shown = [f"{n:>4} | {line[:200]}" for n, line in enumerate(lines[:_MOST_NUMBERED], 1)]
    left = len(lines) - _MOST_NUMBERED
    return "\n".join([*shown, f"     ... {left:,} lines more"] if left > 0 else shown)


def marked(text: str, line: int, mark: str) -> str:
    """The lines around `line`, which has `mark` behind it."""
    lines = lines_of(text, ends=False)
    if not lines:
        return ""
    number = min(line, len(lines))
    around = range(max(1, number - 2), min(len(lines), number + 2) + 1)
    head = mark.splitlines()[0][:200] if mark else ""
    return "\n".join(
        f"{n:>4} | {lines[n - 1][:200]}{f'  <--- {head}' if n == number else ''}" for n in around
    )
