"""A picture as text for a terminal: a tree from what nothing uses down to what it was made from.

A box that several use stands once; the others point to it by its number. Where the tree would grow
too deep for the width, it goes on below, from the left again. Nothing recurses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracegraph.view.look import FEEDBACK, LOOKS
from tracegraph.view.picture import Arrow, Box, Picture
from tracegraph.view.plain import fit, one_line, shorten

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Text", "text"]

_NARROWEST = 20
_LIMIT = 120  # characters of one field, before the line is cut


def text(picture: Picture, *, width: int = 80) -> str:
    """`picture` as lines of at most `width` cells (at least 20).

    >>> prompt = Box(key=1, title="prompt", role="parameter", kind="text", lines=("'Be kind.'",))
    >>> answer = Box(key=2, title="answer", role="output")
    >>> print(text(Picture((prompt, answer), (Arrow(tail=1, head=2, label="p"),)), width=60))
    #2 ◎ answer
    └─ p: #1 ◆ prompt [text]  'Be kind.'
    """
    return "\n".join(row.words for row in _rows(picture, width))


@dataclass(frozen=True, slots=True)
class Text:
    """`picture` as text below a `note`; rich shows it in colour and in the width of the terminal."""

    picture: Picture
    note: str = ""

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.note, text(self.picture))))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text as Coloured

        if self.note:
            yield Coloured(self.note)
        for row in _rows(self.picture, options.max_width):
            yield Coloured(row.words, style=row.style, no_wrap=True, overflow="crop", end="\n")


@dataclass(frozen=True, slots=True)
class _Row:
    words: str
    style: str


@dataclass(frozen=True, slots=True)
class _Visit:
    """A box to be written: reached by `arrow`, behind `stem`; `last` of its user's inputs."""

    at: int
    arrow: Arrow | None
    stem: str
    last: bool


_STYLES = {
    "parameter": "yellow",
    "input": "blue",
    "operation": "",
    "output": "bold green",
    "failure": "bold red",
}


def _rows(picture: Picture, width: int) -> Iterator[_Row]:
    if width < _NARROWEST:
        raise ValueError(f"width must be at least {_NARROWEST} cells, got {width}")
    if picture.title:
        yield _Row(fit(one_line(shorten(picture.title, _LIMIT)), width), "bold")
    inputs: list[list[tuple[int, Arrow]]] = [[] for _ in picture.boxes]
    used = [False] * len(picture.boxes)
    for arrow, (tail, head) in zip(picture.arrows, picture.indexed(), strict=True):
        inputs[head].append((tail, arrow))
        used[tail] = True
    written = [False] * len(picture.boxes)
    # First what nothing uses; then, were there a cycle, what is left.
    roots = deque(at for at in range(len(used)) if not used[at])
    rest = iter(range(len(used)))
    while True:
        if not roots:
            left = next((at for at in rest if not written[at]), None)
            if left is None:
                return
            roots.append(left)
        stack = [_Visit(roots.popleft(), None, "", True)]
        while stack:
            visit = stack.pop()
            box = picture.boxes[visit.at]
            lead = _lead(visit)
            if written[visit.at]:
                if visit.arrow is not None:
                    yield _row(lead, visit, f"#{box.key} {_title(box)} (above)", box, width)
                continue
            if visit.arrow is not None and len(visit.stem) + 3 > width // 2 and inputs[visit.at]:
                yield _row(lead, visit, f"#{box.key} {_title(box)} (below)", box, width)
                roots.append(visit.at)
                continue
            written[visit.at] = True
            yield _row(lead, visit, _words(box, root=visit.arrow is None), box, width)
            stem = visit.stem if visit.arrow is None else visit.stem + _under(visit)
            for place, (tail, arrow) in enumerate(reversed(inputs[visit.at])):
                stack.append(_Visit(tail, arrow, stem, place == 0))


def _lead(visit: _Visit) -> str:
    if visit.arrow is None:
        return ""
    return visit.stem + ("└─ " if visit.last else "├─ ")


def _under(visit: _Visit) -> str:
    return "   " if visit.last else "│  "


def _row(lead: str, visit: _Visit, words: str, box: Box, width: int) -> _Row:
    arrow = visit.arrow
    label = ""
    if arrow is not None:
        name = one_line(shorten(arrow.label, 40))
        label = f"{FEEDBACK.mark} " if arrow.on_path else ""
        label += f"({name}): " if arrow.captured else f"{name}: " if name else ""
    style = _STYLES[box.role]
    return _Row(fit(lead + label + words, width), style)


def _words(box: Box, *, root: bool) -> str:
    parts = [f"#{box.key} {_title(box)}"]
    if box.kind:
        parts[0] += f" [{one_line(shorten(box.kind, 20))}]"
    if box.hidden:
        parts[0] += " (hidden)"
    parts += [one_line(shorten(line, _LIMIT)) for line in box.lines[:3]]
    if box.feedback or (box.on_path and root):
        parts.insert(1, f"{FEEDBACK.mark} {one_line(shorten(box.feedback, _LIMIT))}".strip())
    return "  ".join(parts)


def _title(box: Box) -> str:
    return f"{LOOKS[box.role].mark} {one_line(shorten(box.title, _LIMIT))}"
