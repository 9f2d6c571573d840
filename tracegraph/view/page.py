"""What a page shows: pictures in steps, and what there is to say of each box.

Like a picture, a page is a value that knows no nodes and no history. Whoever has a run or a graph
says it in these words; `html` makes one file of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tracegraph.errors import PictureError
from tracegraph.view.picture import Picture

__all__ = [
    "Curve",
    "Entry",
    "Exchange",
    "Frame",
    "Front",
    "Histogram",
    "Page",
    "Rejection",
    "Version",
]

Form = Literal["text", "code", "tree", "error", "facts", "histogram", "diff", "image"]
_FORMS: tuple[str, ...] = get_args(Form)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie in each of `counts` equal bins from `low` to `high`."""

    low: float
    high: float
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise PictureError(
                f"a histogram needs finite ends, got {self.low} and {self.high}; leave infinite "
                "values out and say so in words"
            )


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to say of a box, under `heading`.

    `content` goes by `form`: words for "text", "code" and "error"; what `tree` gave for "tree"; a
    mapping of words to words for "facts"; a `Histogram` for "histogram"; two texts, before and
    after, for "diff"; the bytes of a PNG for "image".

    >>> Entry("Value", "code", "def f(x): return x").form
    'code'
    """

    heading: str
    form: Form
    content: Any

    def __post_init__(self) -> None:
        if self.form not in _FORMS:
            raise PictureError(
                f"the entry {self.heading!r} has the form {self.form!r}; use one of "
                f"{', '.join(_FORMS)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A parameter's value at a step, as text, and who wrote it."""

    number: int
    text: str
    kind: str = "text"
    origin: str = ""
    trusted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A proposal that was not taken, and why."""

    parameter: str
    reason: str
    proposal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What a model was asked and what it said."""

    prompt: str
    reply: str
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One step: its picture, what to say of each box (by key), and how the parameters stood.

    `score` grows with quality; `cost` is what this step alone cost, in dollars. Raises
    `PictureError` for details of a box that is not in the picture.
    """

    picture: Picture
    title: str = ""
    note: str = ""
    details: Mapping[int, tuple[Entry, ...]] = field(default_factory=dict)
    parameters: Mapping[str, Version] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    score: float | None = None
    cost: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {box.key for picture in self.picture.whole() for box in picture.boxes}
        strangers = self.details.keys() - known
        if strangers:
            raise PictureError(
                f"there are details for {min(strangers)}, which is no box of the picture of "
                f"{self.title or 'this step'!r}; add the box or leave the details out"
            )


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of points (x, y), in order of x; `unit` stands before each y."""

    name: str
    points: tuple[tuple[float, float], ...]
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Candidates by two scores: (id, x, y) of each, and the ids of those that none beats."""

    x: str
    y: str
    points: tuple[tuple[str, float, float], ...]
    best: frozenset[str]


@dataclass(frozen=True, slots=True)
class Page:
    """Steps in order, under one title.

    A page of a whole run may have its `candidates` as a frame (see `lineage`), `curves`, and
    `fronts`. Raises `PictureError` when there is neither a step nor a candidate.

    >>> Page("a run", (Frame(picture=Picture(())),)).title
    'a run'
    """

    title: str
    frames: tuple[Frame, ...]
    candidates: Frame | None = None
    curves: tuple[Curve, ...] = ()
    fronts: tuple[Front, ...] = ()

    def __post_init__(self) -> None:
        if not self.frames and self.candidates is None:
            raise PictureError("a page needs at least one step to show, got none")
