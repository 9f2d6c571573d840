"""Show code with its lines numbered, and the line to blame marked; `BadSource` says it as an error."""

from __future__ import annotations

import unicodedata

from tracegraph.legible import legible, unseen
from tracegraph.spans import lines_of

__all__ = ["BadSource", "marked", "numbered", "refuse_unseen"]

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
    shown = [f"{n:>4} | {legible(line[:200])}" for n, line in enumerate(lines[:_MOST_NUMBERED], 1)]
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
        f"{n:>4} | {legible(lines[n - 1][:200])}{f'  <--- {head}' if n == number else ''}"
        for n in around
    )


def refuse_unseen(text: str) -> None:
    """Refuse code that is not what a person reads who looks at it.

    Raises:
        BadSource: a character in it is not seen, or moves what is.

    >>> refuse_unseen("def f(x):\\n    return x  # \\u202e")
    Traceback (most recent call last):
    tracegraph.marking.BadSource: U+202E (RIGHT-TO-LEFT OVERRIDE) is not seen where it stands, ...
       1 | def f(x):
       2 |     return x  # \\u202e  <--- U+202E
    """
    at = unseen(text)
    if at is None:
        return
    code = f"U+{ord(text[at]):04X}"
    named = unicodedata.name(text[at], "a control character")
    raise BadSource(
        f"{code} ({named}) is not seen where it stands, or moves what is, so nobody could check the code "
        f"by reading it; leave it out, or write it in a string as {ascii(text[at])[1:-1]}",
        text=text,
        line=len(lines_of(text[: at + 1])),
        mark=code,
    )
