"""Characters that a reader of code does not see, or sees elsewhere than where they stand.

Controls of the direction of writing can show code in another order than it runs (N. Boucher and
R. Anderson, "Trojan Source: Invisible Vulnerabilities", USENIX Security 2023), a return of the carriage
can show a later line over an earlier one, and a terminal obeys control characters.
"""

from __future__ import annotations

import unicodedata

__all__ = ["legible", "unseen"]

_KINDS = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Of Unicode: controls, formats, and ends of lines and paragraphs that are none to Python."""
_HARMLESS = frozenset("\t\n\f\u200c\u200d")  # joiners are parts of words and of emoji


def unseen(text: str) -> int | None:
    """Where the first character stands that a reader does not see, or None.

    >>> unseen("x = 1  # fine"), unseen("x = 1  # \\u202e"), unseen("x = 1\\r\\n"), unseen("x\\ry")
    (None, 9, None, 1)
    """
    found = _of(text)
    places = [text.find(sign) for sign in found if sign != "\r"]
    if "\r" in found:  # of a line's end it is a part
        places.append(text.replace("\r\n", "\n\n").find("\r"))
    if text.startswith("\ufeff"):  # the mark of a file's beginning
        rest = unseen(text[1:])
        return None if rest is None else rest + 1
    return min((place for place in places if place >= 0), default=None)


def legible(text: str) -> str:
    """A text that shows what is in it: what a reader does not see is written as its number.

    >>> print(legible("say \\x1b[2J and \\u202e"))
    say \\x1b[2J and \\u202e
    """
    found = _of(text)
    return text.translate({ord(sign): ascii(sign)[1:-1] for sign in found}) if found else text


def _of(text: str) -> set[str]:
    return {sign for sign in set(text) - _HARMLESS if unicodedata.category(sign) in _KINDS}
