"""Read JSON objects out of text that a language model wrote, as far as they can be read.

Valid JSON is read exactly. Beyond it: Python literals and quotes, trailing and missing commas, raw
line breaks in strings, unescaped inner quotes where the end is plain, line comments, triple
quotes, an end that is missing. What was repaired or lost is noted. The work is linear in the
text: every character that is looked at costs fuel, and the fuel is a multiple of the length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CutList", "CutObject", "Found", "Lenient", "read_value"]

_FUEL_PER_CHARACTER = 8
_DEEPEST = 100
_LONGEST_NUMBER = 640  # digits that Python surely reads, whatever its limit is set to
_MOST_SECOND_LOOKS = 200
_OPENING = re.compile(r"""\{(?=\s*+["'}/#\w,])""")
_BLANK = re.compile(r"(?:\s++|//[^\n]*+|#[^\n]*+)*+")
_PLAIN = {'"': re.compile(r'[^"\\]*+'), "'": re.compile(r"[^'\\]*+")}
_KEY = {'"': re.compile(r'[^"\\\n]*+'), "'": re.compile(r"[^'\\\n]*+")}
_BARE_KEY = re.compile(r"[^\W\d][\w.\-]*+(?:\[\w+\])*+(?::\d+)?(?=\s*+:)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")
_WORD = re.compile(r"-?[A-Za-z]++")
_WORDS: dict[str, Any] = {
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
_ENDS_SCALAR = re.compile(r"""\s*+(?:[,}\])"'#]|//|\Z)|[^\S\n]*+\n""")
_REST_OF_SCALAR = re.compile(r"[^,}\])\n]*+")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\"}
_ESCAPES |= {'"': '"', "'": "'"}
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_PYTHON_HEX = re.compile(r"x([0-9a-fA-F]{2})|U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})")
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_MISSING_COMMA = re.compile(r"""[^\S\n]*+\n\s*+(?:"[^"\n]{1,200}"|'[^'\n]{1,200}')\s*+:""")
_COMMA_AND_KEY = re.compile(r"""\s*+,\s*+(?:"[^"\n]{1,200}"|'[^'\n]{1,200}')\s*+:""")
_CLOSED_TO_THE_END = re.compile(r"\s*+[}\]][\s}\]]*+(?:\Z|```)")


class CutObject(dict[str, Any]):
    """An object whose end could not be read; what stands in it was complete."""


class CutList(list[Any]):
    """A list whose end could not be read."""


class _Broken(Exception):
    """Nothing more can be read from here."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.reason, self.at = reason, at
        self.path: list[str] = []
        self.partial: str | None = None


class _OutOfFuel(Exception):
    pass


class _Unreadable:
    """Stands for a value that could be passed over and not read."""


_UNREADABLE = _Unreadable()


@dataclass(slots=True)
class Found:
    """An object in the text from `start` to `end`; `notes` say what was repaired or lost."""

    value: dict[str, Any]
    start: int
    end: int
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether its end was there."""
        return not isinstance(self.value, CutObject)


class Lenient:
    """A reader of one text; `work` counts the characters that it looked at.

    >>> [found.value for found in Lenient("Sure: {'x': True, 'note': 'it is'}").objects()]
    [{'x': True, 'note': 'it is'}]
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._notes: list[str] = []
        self._cut_at: _Broken | None = None
        self.work = 0
        self._fuel = _FUEL_PER_CHARACTER * len(text) + 1_000
        self._resume = 0
        self._second_looks = 0

    def objects(self) -> Iterator[Found]:
        """The outermost objects, in order; after each, `look_inside` may be called.

        Behind an object of which only a part could be read the search goes on at that point.
        """
        self._resume = 0
        while (opening := _OPENING.search(self._text, self._resume)) is not None:
            start = opening.start()
            self._resume = start + 1
            try:
                found = self._found(start)
            except _Broken:
                continue
            except _OutOfFuel:
                return
            self._resume = found.end
            yield found

    def _found(self, start: int) -> Found:
        self._reset()
        value, end = self._object(start, 0)
        notes = [] if self._cut_at is None else [_described(self._cut_at)]
        return Found(value, start, end, self._notes + notes)

    def _reset(self) -> None:
        self._notes, self._cut_at = [], None

    def look_inside(self, found: Found) -> None:
        """Search next right behind the opening brace of `found`, not behind its end.

        Only so many times per text; then the search goes on behind the end.
        """
        if self._second_looks < _MOST_SECOND_LOOKS:
            self._second_looks += 1
            self._resume = found.start + 1

    def value(self) -> Any:
        """The one value that is the whole text; ValueError where it is none."""
        try:
            start = self._blank(0)
            value, end = self._value(start, 0, top=True)
            whole = self._blank(end) == len(self._text)
        except (_Broken, _OutOfFuel) as error:
            raise ValueError("not readable as a value") from error
        if not whole or value is _UNREADABLE or self._cut_at is not None:
            raise ValueError("not readable as a value")
        return value

    # Every method below takes a position, and returns what it read and the position behind it.

    def _spend(self, characters: int) -> None:
        self.work += characters + 1
        if self.work > self._fuel:
            raise _OutOfFuel

    def _match(self, pattern: re.Pattern[str], at: int) -> int:
        """The end of a pattern that matches here, or `at` where it does not."""
        match = pattern.match(self._text, at)
        end = at if match is None else match.end()
        self._spend(end - at)
        return end

    def _blank(self, at: int) -> int:
        return self._match(_BLANK, at)

    def _at(self, at: int) -> str:
        return self._text[at : at + 1]

    def _object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        entries: dict[str, Any] = {}
        here = at + 1
        key: str | None = None
        try:
            if depth > _DEEPEST:
                raise _Broken("is nested too deeply", here)
            while True:
                key = None
                here = self._blank(here)
                while self._at(here) == ",":
                    here = self._blank(here + 1)
                if self._at(here) == "}":
                    return entries, here + 1
                name, here = self._key(here)
                here = self._blank(here)
                if self._at(here) != ":":
                    raise self._broken(here)
                key = name
                value, here = self._value(self._blank(here + 1), depth + 1)
                self._enter(entries, key, value)
                if self._cut_at is not None:
                    self._cut_at.path.insert(0, key)
                    return CutObject(entries), here
                here = self._after_entry(here, "}", key)
        except _Broken as broken:
            if not entries and key is None:
                raise
            if key is not None:
                broken.path.insert(0, key)
                if broken.partial is not None:
                    entries.setdefault(key, _Partial(broken.partial))
            self._cut_at = broken
            return CutObject(entries), max(broken.at, at + 1)

    def _enter(self, entries: dict[str, Any], key: str, value: Any) -> None:
        if key in entries:
            self._notes.append(f"the key {key!r:.80} appears twice; the last one counts")
        if value is not _UNREADABLE:
            entries[key] = value

    def _after_entry(self, at: int, closer: str, key: str) -> int:
        here = self._blank(at)
        following = self._at(here)
        if following in (",", closer) or not following:
            return here
        if following in "\"'" or following.isalpha() or following == "_":
            self._notes.append(f"a comma was missing after the value of {key!r:.80}")
            return here
        raise self._broken(here)

    def _list(self, at: int, closer: str, depth: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        here = at + 1
        try:
            if depth > _DEEPEST:
                raise _Broken("is nested too deeply", here)
            while True:
                here = self._blank(here)
                if self._at(here) == closer:
                    return items, here + 1
                item, here = self._value(here, depth + 1)
                if item is _UNREADABLE:
                    raise self._broken(here)
                items.append(item)
                if self._cut_at is not None:
                    return CutList(items), here
                here = self._blank(here)
                if self._at(here) == ",":
                    here += 1
                elif self._at(here) != closer:
                    raise self._broken(here)
        except _Broken as broken:
            self._cut_at = broken
            broken.partial = None
            return CutList(items), max(broken.at, at + 1)

    def _key(self, at: int) -> tuple[str, int]:
        quote = self._at(at)
        if quote in ('"', "'"):
            return self._string(at, quote, key=True)
        end = self._match(_BARE_KEY, at)
        if end == at:
            raise self._broken(at)
        return self._text[at:end], end

    def _value(self, at: int, depth: int, *, top: bool = False) -> tuple[Any, int]:
        first = self._at(at)
        if first == "{":
            return self._object(at, depth)
        if first in ("[", "("):
            return self._list(at, "]" if first == "[" else ")", depth)
        if first in ('"', "'"):
            if self._text.startswith(first * 3, at):
                return self._triple(at, first * 3)
            return self._string(at, first, key=False)
        return self._scalar(at, top=top)

    def _scalar(self, at: int, *, top: bool) -> tuple[Any, int]:
        for pattern in (_NUMBER, _WORD):
            end = self._match(pattern, at)
            written = self._text[at:end]
            if end == len(self._text) and not top:
                raise self._broken(end)
            if end == at or not (end == len(self._text) or _ENDS_SCALAR.match(self._text, end)):
                continue
            if pattern is _WORD:
                if written in _WORDS:
                    return _WORDS[written], end
                continue
            if len(written) <= _LONGEST_NUMBER:
                return (float if set(written) & set(".eE") else int)(written), end
        end = self._match(_REST_OF_SCALAR, at)
        if end == at or end == len(self._text):
            raise self._broken(end)
        self._notes.append(f"{self._text[at:end].strip()!r:.80} is not a JSON value")
        return _UNREADABLE, end

    def _triple(self, at: int, quotes: str) -> tuple[str, int]:
        end = self._text.find(quotes, at + 3)
        self._spend((len(self._text) if end < 0 else end) - at)
        if end < 0:
            raise self._broken(len(self._text))
        self._notes.append("a value in triple quotes was taken as it stands, escapes included")
        return self._text[at + 3 : end], end + 3

    def _string(self, at: int, quote: str, *, key: bool) -> tuple[str, int]:
        pieces: list[str] = []
        plain = (_KEY if key else _PLAIN)[quote]
        inner_quotes = False
        here = at + 1
        while True:
            end = self._match(plain, here)
            pieces.append(self._text[here:end])
            stop = self._at(end)
            if stop == "\\" and end + 1 < len(self._text):
                piece, here = self._escape(end)
                pieces.append(piece)
            elif stop == quote:
                if key or self._closes(end + 1, inner_quotes):
                    break
                inner_quotes = True
                pieces.append(quote)
                here = end + 1
            else:
                broken = self._broken(end)
                broken.partial = None if key else "".join(pieces)
                raise broken
        if inner_quotes:
            self._notes.append("a value had quotes inside that were not escaped; they were kept")
        return "".join(pieces), end + 1

    def _closes(self, at: int, inner_quotes: bool) -> bool:
        """Whether a quote before `at` ends a value; in valid JSON it always does."""
        if inner_quotes:
            return (
                self._match(_COMMA_AND_KEY, at) > at
                or self._match(_CLOSED_TO_THE_END, at) > at
                or self._match(_MISSING_COMMA, at) > at
            )
        following = self._at(self._blank(at))
        return following in ("", ",", "}", "]", ")") or self._match(_MISSING_COMMA, at) > at

    def _escape(self, at: int) -> tuple[str, int]:
        letter = self._text[at + 1]
        self._spend(2)
        if letter in _ESCAPES:
            return _ESCAPES[letter], at + 2
        if letter == "u" and (digits := _HEX.match(self._text, at + 2)) is not None:
            code = int(digits[0], 16)
            low = _LOW_SURROGATE.match(self._text, at + 6)
            if 0xD800 <= code < 0xDC00 and low is not None:
                return chr(0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00), at + 12
            return chr(code), at + 6
        if (digits := _PYTHON_HEX.match(self._text, at + 1)) is not None:
            return chr(int(digits[1] or digits[2], 16)), digits.end()
        self._notes.append(f"'\\{letter}' is no escape of JSON; it was kept as it stands")
        return "\\" + letter, at + 2

    def _broken(self, at: int) -> _Broken:
        if at >= len(self._text):
            return _Broken("is cut off", at)
        return _Broken(f"cannot be read from {self._text[at : at + 40]!r} on", at)


class _Partial(str):
    """The beginning of a text whose end is missing."""

    __slots__ = ()


def _described(broken: _Broken) -> str:
    where = "".join(f" in {key!r:.80}" for key in broken.path[-1:])
    return f"the reply {broken.reason}{where}; what was incomplete there and what follows is lost"


def is_partial(value: Any) -> bool:
    """Whether the end of a value is missing."""
    return isinstance(value, CutObject | CutList | _Partial)


def read_value(text: str) -> Any:
    """The JSON value or Python literal that is the whole text; ValueError where it is none.

    >>> read_value("[1, 2.5, None]")
    [1, 2.5, None]
    """
    return Lenient(text).value()
