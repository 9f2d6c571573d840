"""Count tokens roughly, and cut text to a number of them, without a network or a vocabulary."""

from __future__ import annotations

import re
from typing import Literal

from tracegraph.errors import WrongModel
from tracegraph.llm.messages import Request

__all__ = ["bound_tokens", "count_tokens", "cut", "prefix", "shares", "truncate"]

_ASCII_TOKEN = re.compile(r"[A-Za-z]{1,7}|[0-9]{1,3}|[!-/:-@\[-`{-~]{1,2}|\n\s*| {4,}")
_TOKENS_PER_FOREIGN_BYTE = 0.36
_PER_MESSAGE = 16


def count_tokens(text: str) -> int:
    """About how many tokens a text has; the same text always gives the same number.

    Words of up to 7 letters, 3 digits, 2 signs and a line break count as one token, a byte
    outside ASCII as 0.36. Against OpenAI's cl100k vocabulary the estimate was 0.93 to 1.20 of
    the truth for English prose, Python code and JSON, 0.76 for German, 1.19 for Chinese, 1.38 for
    Russian; for random base64 it was as low as 0.5. Use `bound_tokens` where a limit is hard.

    >>> count_tokens("Answer in one line.")
    5
    """
    count = len(_ASCII_TOKEN.findall(text))
    if text.isascii():
        return count
    ascii_characters = len(text.encode("ascii", "ignore"))
    foreign_bytes = len(text.encode("utf-8", "replace")) - ascii_characters
    return count + round(foreign_bytes * _TOKENS_PER_FOREIGN_BYTE)


def bound_tokens(request: Request) -> int:
    """A number of tokens that no byte-level tokenizer exceeds for a request's prompt.

    Every token of such a vocabulary covers at least one byte, and chat formats add a few tokens
    per message.
    """
    texts = [
        str(m.content) if not isinstance(m.content, str) else m.content for m in request.messages
    ]
    schema = request.json_schema()
    parts = texts if schema is None else [*texts, str(schema)]
    size = sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)
    return size + _PER_MESSAGE * (len(parts) + 1)


def truncate(text: str, tokens: int, *, keep: Literal["start", "end", "both"] = "both") -> str:
    """The text cut to about `tokens` tokens, with a note in place of what was left out.

    The result counts at most `tokens` by `count_tokens`, unless the note alone is longer; then
    the result is the note. `keep` says which part stays.

    >>> truncate("abc " * 1000, 20, keep="start")
    'abc abc abc abc abc [... 3,980 of 4,000 characters left out ...]'
    """
    if tokens < 0:
        raise WrongModel(f"tokens must be 0 or more, got {tokens}")
    if keep not in ("start", "end", "both"):
        raise WrongModel(f"keep must be 'start', 'end' or 'both', got {keep!r}")
    if count_tokens(text) <= tokens:
        return text
    low, high = 0, min(len(text) - 1, tokens * 40)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(_cut(text, middle, keep)) <= tokens:
            low = middle
        else:
            high = middle - 1
    return _cut(text, low, keep)


def _cut(text: str, kept: int, keep: str) -> str:
    head = {"start": kept, "end": 0, "both": (kept + 1) // 2}[keep]
    tail = kept - head
    note = f"[... {len(text) - kept:,} of {len(text):,} characters left out ...]"
    return text[:head] + note + text[len(text) - tail :]


def cut(text: str, characters: int) -> str:
    """The beginning of a text, and how much is missing.

    >>> cut("one two three", 7), cut("one", 7)
    ('one two (+6 characters)', 'one')
    """
    kept = max(characters, 0)
    return text if len(text) <= kept else f"{text[:kept]} (+{len(text) - kept:,} characters)"


def prefix(text: str, tokens: int, *, note: str = " (+{:,} characters)") -> str:
    """The beginning of a text, about `tokens` tokens long; `note` says how much is missing.

    Looks at no more of a long text than it keeps.

    >>> prefix("abc " * 1000, 5)
    'abc abc abc abc abc  (+3,980 characters)'
    """
    kept = min(len(text), max(tokens, 1) * 8)
    size = count_tokens(text[:kept])
    while size > tokens and kept:
        kept = min(kept - 1, kept * tokens // size)
        size = count_tokens(text[:kept])
    return text if kept == len(text) else text[:kept] + note.format(len(text) - kept)


def shares(sizes: list[int], total: int, least: int) -> list[int]:
    """How much of `total` each of several gets: the small ones all, the large ones equal parts.

    Where the equal part would be less than `least`, the last ones get nothing; the first one always
    gets something.

    >>> shares([10, 500, 500], 210, least=50)
    [10, 100, 100]
    >>> shares([60, 60, 60], 120, least=50)
    [50, 50, 0]
    """
    level, left = total, total
    for number, size in enumerate(sorted(sizes)):
        level = max(left // (len(sizes) - number), least)
        if size > level:
            break
        left -= size
        level = max(level, size)
    given: list[int] = []
    left = total
    for size in sizes:
        share = min(size, level)
        share = share if share <= left or not given else 0
        given.append(share)
        left -= share
    return given
