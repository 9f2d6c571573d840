"""A page as one self-contained HTML file: no server, no network, no library.

Every word may come from a model or a user. Words reach the file in two ways only: escaped by
`svg`, or inside JSON in which ``<`` is written ``\\u003c``, so that no word can end its element. The
script shows them by ``textContent`` alone. Behind that stands a content security policy: only the one
script and the one style sheet whose hashes it names are taken, and nothing is ever fetched.
"""

from __future__ import annotations

import json
import math
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from tracegraph.errors import PictureError
from tracegraph.view.drawings import Drawings
from tracegraph.view.page import Entry, Frame, Front, Histogram, Page
from tracegraph.view.paused import paused_collector
from tracegraph.view.picture import Picture
from tracegraph.view.plain import plain, shorten
from tracegraph.view.style import STYLE
from tracegraph.writing import write_whole

__all__ = ["framed", "html", "write_html"]

_SCRIPTS = ("elements.js", "charts.js", "texts.js", "sections.js", "overview.js", "viewer.js")
_TITLE, _WORDS, _LONGEST = 200, 8_000, 100_000


def write_html(page: Page, path: str | os.PathLike[str], *, words: int = _WORDS) -> Path:
    """Write `page` to a file that ends in .html, whole or not at all; return its path.

    Raises `PictureError` for another ending, and OSError where the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise PictureError(
            f"cannot write {str(path)!r}: the page is HTML; let the name end in .html"
        )
    write_whole(path, html(page, words=words).encode())
    return path


def framed(page: str, *, title: str) -> str:
    """The text of an HTML page as a frame inside another page, which it can neither read nor change."""
    return (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" title="{escape(title)}" '
        'width="100%" height="520" style="border:1px solid #8a94a3"></iframe>'
    )


@paused_collector()
def html(page: Page, *, words: int = _WORDS) -> str:
    """`page` as the text of an HTML file; of each text at most `words` characters are kept.

    What occurs in several steps is stored once: texts, words, shapes, ways.

    >>> from tracegraph.view.picture import Box
    >>> said = Entry("Value", "text", "</script><script>alert(1)</script>")
    >>> one = Frame(picture=Picture((Box(key=1, title="x"),)), details={1: (said,)})
    >>> text = html(Page("one value", (one,)))
    >>> "alert(1)" in text, "<script>alert(1)" in text
    (True, False)
    """
    if not 1 <= words <= _LONGEST:
        raise PictureError(f"words must lie between 1 and {_LONGEST:,} characters, got {words}")
    script, style = "".join(map(_part, _SCRIPTS)), STYLE + _part("viewer.css")
    frames = page.frames if page.candidates is None else (*page.frames, page.candidates)
    roots: dict[Picture, int] = {}  # a picture is looked up once in a frame: that goes through it
    shown = [roots.setdefault(frame.picture, len(roots)) for frame in frames]
    pictures = [picture for root in roots for picture in root.whole()]
    numbers = {id(picture): number for number, picture in enumerate(pictures)}
    outer = {id(root) for root in roots}
    places = [numbers[id(root)] for root in roots]
    told, drawings = _Told(words), Drawings()
    drawn = [drawings.add(each, numbers, legend=id(each) in outer) for each in pictures]
    data = {
        "title": plain(shorten(page.title, _TITLE)),
        "pictures": drawn,
        "words": drawings.words,
        "lists": drawings.lists,
        "frames": [told.frame(frame, places[at]) for frame, at in zip(frames, shown, strict=True)],
        "candidates": int(page.candidates is not None),
        "curves": [
            [plain(shorten(c.name, _TITLE)), plain(shorten(c.unit, 20)), _points(c.points)]
            for c in page.curves
        ],
        "fronts": [_front(front) for front in page.fronts],
        "entries": told.entries,
        "texts": list(told.texts),
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{_hash(script)}'; img-src data:; "
        f"style-src 'sha256-{_hash(style)}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(plain(shorten(page.title, _TITLE)) or 'tracegraph')}</title>\n"
        f"<style>{style}</style>\n</head>\n<body>\n"
        '<main id="graph"></main>\n'
        f'<script type="application/json" id="page">{_json(data)}</script>\n'
        f'<script type="text/plain" id="markup">{drawings.markup}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


@cache
def _part(name: str) -> str:
    return (files("tracegraph.view") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def _json(data: Any) -> str:
    """JSON that no word inside can end: neither as an element nor as a line of script."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _points(points: Iterable[tuple[float, float]]) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _front(front: Front) -> dict[str, Any]:
    return {
        "x": plain(shorten(front.x, _TITLE)),
        "y": plain(shorten(front.y, _TITLE)),
        "points": [
            [plain(shorten(name, _TITLE)), float(x), float(y), int(name in front.best)]
            for name, x, y in front.points
            if math.isfinite(x) and math.isfinite(y)
        ],
    }


class _Told:
    """Turns frames into JSON; texts and entries that are told again are stored once."""

    def __init__(self, words: int) -> None:
        self.words = words
        self.texts: dict[str, int] = {}
        self.entries: list[tuple[str, str, Any]] = []
        self._known: dict[object, int] = {}

    def text(self, text: str) -> int:
        """The number of a text, made plain and cut."""
        text = text[: self.words * 2 + 100] if len(text) > self.words * 3 else text
        return self.texts.setdefault(shorten(plain(text), self.words), len(self.texts))

    def frame(self, frame: Frame, picture: int) -> dict[str, Any]:
        return {
            "picture": picture,
            "title": plain(shorten(frame.title, _TITLE)),
            "note": plain(shorten(frame.note, self.words)),
            "details": {
                str(key): [self.entry(entry) for entry in entries]
                for key, entries in frame.details.items()
            },
            "parameters": {
                plain(shorten(name, _TITLE)): [
                    v.number, self.text(v.text), plain(v.kind), plain(v.origin), int(v.trusted),
                ]
                for name, v in frame.parameters.items()
            },
            "rejections": [
                [self.text(r.parameter), self.text(r.reason), self.text(r.proposal)]
                for r in frame.rejections
            ],
            "exchanges": [
                [self.text(e.prompt), self.text(e.reply), self.text(e.model)]
                for e in frame.exchanges
            ],
            "score": _finite(frame.score),
            "cost": _finite(frame.cost),
            "facts": _facts(frame.facts),
        }  # fmt: skip

    def entry(self, entry: Entry) -> int:
        made = (plain(shorten(entry.heading, _TITLE)), entry.form, self.content(entry))
        known: object = made if isinstance(made[2], int) else repr(made)
        if known not in self._known:
            self._known[known] = len(self.entries)
            self.entries.append(made)
        return self._known[known]

    def content(self, entry: Entry) -> Any:
        if isinstance(entry.content, str):
            return self.text(entry.content)
        if isinstance(entry.content, Histogram):
            return [entry.content.low, entry.content.high, list(entry.content.counts)]
        if entry.form == "facts":
            return _facts(entry.content)
        if entry.form == "diff":
            return [self.text(entry.content[0]), self.text(entry.content[1])]
        if entry.form == "image":
            return f"data:image/png;base64,{b64encode(entry.content).decode()}"
        return entry.content


def _facts(facts: Mapping[str, str]) -> list[list[str]]:
    return [
        [plain(shorten(str(name), _TITLE)), plain(shorten(str(said), _TITLE))]
        for name, said in facts.items()
    ]


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)
