"""The words of a picture, cut to what a box or an arrow can show.

Both ways of drawing, SVG and DOT, take their words from here, so that they say the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracegraph.view.picture import Arrow, Box, Picture
from tracegraph.view.plain import one_line, plain, shorten

__all__ = ["Words", "heading", "label", "tooltip", "words"]

_HEADING, _TITLE, _LINE, _BADGE, _LABEL, _TOOLTIP = 100, 34, 40, 14, 16, 2_000
_LINES = 5


@dataclass(frozen=True, slots=True)
class Words:
    """What stands in a box: each on one line, plain, short."""

    title: str
    lines: tuple[str, ...]
    badge: str
    feedback: str


def words(box: Box) -> Words:
    """What stands in `box`.

    >>> cut = words(Box(key=1, title="prompt", lines=("x" * 60,), kind="text", hidden=True))
    >>> cut.title, cut.lines[0], cut.badge
    ('prompt', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxx… +31 chars', 'text · hidden')
    """
    lines = [_cut(line, _LINE) for line in box.lines[:_LINES]]
    if len(box.lines) > _LINES:
        lines[-1] = f"… +{len(box.lines) - _LINES + 1:,} lines"
    badge = [_cut(box.kind, _BADGE)] if box.kind else []
    if box.hidden:
        badge.append("hidden")
    if box.inside is not None:
        badge.append("opens")
    return Words(
        _cut(box.title, _TITLE), tuple(lines), " · ".join(badge), _cut(box.feedback, _LINE)
    )


def label(arrow: Arrow) -> str:
    """What stands beside the end of `arrow`."""
    return _cut(arrow.label, _LABEL)


def heading(picture: Picture) -> str:
    """What stands above `picture`."""
    return _cut(picture.title, _HEADING)


def tooltip(box: Box) -> str:
    """The longer text of `box`, over several lines."""
    text = box.tooltip or "\n".join([box.title, *box.lines])
    parts = [shorten(plain(text), _TOOLTIP)]
    if box.feedback:
        parts.append("feedback: " + shorten(plain(box.feedback), _TOOLTIP))
    return "\n".join(parts)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    # Control characters do not count, yet no more of a long text is read than this.
    if len(text) > 4_000:
        return shorten(one_line(text[:limit]) + text[limit:], limit)
    return shorten(one_line(text), limit)
