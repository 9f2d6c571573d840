"""Text that is safe to draw: no control characters, cut between graphemes, of known width.

Words of a picture come from models and users. They may hold terminal escapes, marks that reverse
the direction of reading, lone surrogates, or ten megabytes. Nothing here looks at more of a long
text than it keeps.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["fit", "one_line", "plain", "shorten", "width"]

# Everything that XML 1.0 forbids (section 2.2), C0 and C1 controls but tab and newline, and the
# marks that change the direction of reading (Unicode Standard Annex #9, section 2).
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]"
)
_TERMINAL = re.compile(r"\x1b\[[0-?]{0,40}[ -/]{0,8}[@-~]|\x1b\][^\x07\x1b]{0,400}(?:\x07|\x1b\\)")
_BREAKS = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# What must stay in one piece: an escape of a string literal, of a terminal, or of markup.
_ESCAPE = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]{1,90}\}|[0-7]{1,3}|.)"
    r"|\x1b\[[0-?]{0,40}[ -/]{0,8}[@-~]"
    r"|&(?:#[0-9]{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});",
    re.DOTALL,
)
_LONGEST_ESCAPE = 100
_JOINING = re.compile(r"[\\&\x1b\r]")  # the ASCII characters that may stay with the next one
_JOINER = "\u200d"
_GLUED = frozenset("\u0e33\u0eb3\uff9e\uff9f")  # letters that Unicode lets no cluster end before


def plain(text: str) -> str:
    r"""`text` without control characters, direction marks and what XML forbids.

    Newlines of every kind become ``\n``; tabs stay.

    >>> plain("a\x1b[31mb\x00c\r\nd")
    'abc\nd'
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub("", _BREAKS.sub("\n", _TERMINAL.sub("", text)))


def one_line(text: str) -> str:
    r"""`text` made plain, on one line; each newline shows as ``↵``.

    >>> one_line("first\n  second")
    'first ↵ second'
    """
    text = plain(text)
    if "\n" not in text and "\t" not in text:
        return text
    return re.sub(r"[ \t]*\n[ \t]*", " ↵ ", text).replace("\t", " ").strip()


def shorten(text: str, limit: int) -> str:
    r"""At most `limit` characters of `text`, and how many were cut.

    The cut falls between graphemes (Unicode Standard Annex #29) and never inside an escape such as
    ``\n``, ``\u00e9`` or ``&amp;``. Only the part that is kept is read.

    >>> shorten("a short text", 40)
    'a short text'
    >>> shorten("x" * 5000, 20)
    'xxxxxx… +4,994 chars'
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1 character, got {limit}")
    if len(text) <= limit:
        return text
    room = limit - len(_tail(len(text)))
    if room < 0:
        return "…"
    head = text[: limit + _LONGEST_ESCAPE]
    if head.isascii() and not _JOINING.search(head):
        return text[:room] + _tail(len(text) - room)
    kept = 0
    for end in _ends(head):
        if end > room:
            break
        kept = end
    return text[:kept] + _tail(len(text) - kept)


def width(text: str) -> int:
    """How many cells of a terminal `text` takes: 2 for wide characters, 0 for marks.

    >>> width("abc"), width("日本"), width("e\u0301")
    (3, 4, 1)
    """
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def fit(text: str, cells: int) -> str:
    """As much of `text` as fits into `cells` cells of a terminal, with ``…`` where it was cut.

    >>> fit("日本語", 5), fit("abc", 5)
    ('日本…', 'abc')
    """
    head = text[: 4 * cells + _LONGEST_ESCAPE]
    if len(head) == len(text) and width(text) <= cells:
        return text
    if cells < 1:
        return ""
    kept = used = 0
    for end in _ends(head):
        used += width(head[kept:end])
        if used > cells - 1:
            break
        kept = end
    return head[:kept] + "…"


def _tail(cut: int) -> str:
    return f"… +{cut:,} chars"


@lru_cache(4_096)
def _cells(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    # Ambiguous characters count as one cell, as in every terminal that is not set to East Asia.
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _ends(text: str) -> Iterator[int]:
    """Where `text` may be cut: after each grapheme or escape, in order.

    Stricter than Annex #29 where that is simpler: a place too few only cuts a little more.
    """
    at, flags = 0, 0
    while at < len(text):
        escape = _ESCAPE.match(text, at) if text[at] in "\\\x1b&" else None
        at = escape.end() if escape else at + 1
        flags = flags + 1 if _is_flag(text[at - 1]) else 0
        if at == len(text) or not _joined(text[at - 1], text[at], flags):
            yield at


def _joined(before: str, after: str, flags: int) -> bool:
    if before < "\u0300" and after < "\u0300":
        return before == "\r" and after == "\n"
    if _JOINER in (before, after) or after in _GLUED:
        return True
    if unicodedata.category(after) in ("Mn", "Me", "Mc", "Cf"):
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff":  # skin tones
        return True
    if "\u1100" <= before <= "\u115f" or "\ua960" <= before <= "\ua97f":  # Hangul, leading
        return True
    if "\u1160" <= after <= "\u11ff" or "\ud7b0" <= after <= "\ud7ff":  # vowels and trailing
        return True
    if unicodedata.combining(before) == 9 or unicodedata.category(before) == "Cf":
        return True  # a virama joins consonants
    return _is_flag(after) and flags % 2 == 1


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
