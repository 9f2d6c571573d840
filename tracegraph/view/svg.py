"""A picture as one self-contained SVG: no script, no font, no link.

It follows the reader's light or dark mode, and each box tells more in its tooltip. Every word is
made plain and escaped, so the result is well-formed XML 1.0 whatever a model or a user wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from itertools import pairwise

from tracegraph.view.layout import Layout, Point, Size, layered
from tracegraph.view.look import LOOKS
from tracegraph.view.paused import paused_collector
from tracegraph.view.picture import Arrow, Box, Picture, Role
from tracegraph.view.plain import one_line, shorten, width
from tracegraph.view.style import LINE, SMALL, STYLE, TITLE
from tracegraph.view.words import Words, heading, label, tooltip, words

__all__ = ["Drawing", "Part", "drawing", "svg"]

_MARGIN = 32.0
_SANS = 0.585  # the width of one cell of bold proportional type, in its size: generous
_MONO = 0.605
_CORNER = 9.0  # of a line that turns
_HEAD = 7.0  # length of an arrowhead
_RING = 6.0  # how far the ring of feedback reaches beyond its box
_STEP = 12.0  # widths of boxes are multiples of it
_LEFT = {"input": 26.0, "failure": 22.0, "output": 24.0}  # where words begin in a box, else at 14
_WIDEST = 420.0  # a box grows no wider for the labels of its arrows
_PLURAL = {
    "parameter": "parameters",
    "input": "inputs",
    "operation": "operations",
    "output": "outputs",
    "failure": "failures",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A box or an arrow as SVG, and the area that it takes: left, top, right, bottom, in pixels.

    Its element is ``<g``, what is its `own` (whose it is, and its `place`), and the `pieces`, which
    many parts have in common. `level` says what lies above what: 0 for arrows, 1 for the way of
    feedback, 2 for boxes.
    """

    own: str
    pieces: tuple[str, ...]
    area: tuple[float, float, float, float]
    level: int
    place: Point | None = None

    @property
    def text(self) -> str:
        """The whole element."""
        return f"<g{self.own}{''.join(self.pieces)}"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture as SVG in parts: what stands before them, they, and what stands after them."""

    head: str
    parts: tuple[Part, ...]
    tail: str


@paused_collector()
def svg(picture: Picture) -> str:
    """`picture` as the text of an SVG file.

    >>> text = svg(Picture((Box(key=1, title="<b>", role="parameter"),), (), "one box"))
    >>> text.startswith("<svg ") and "&lt;b&gt;" in text and "<b>" not in text
    True
    """
    found = drawing(picture)
    parts = sorted(found.parts, key=lambda part: part.level)
    return "\n".join([found.head, *(part.text for part in parts), found.tail])


def drawing(picture: Picture, *, alone: bool = True, legend: bool = True) -> Drawing:
    """`picture` as SVG in parts: arrows and boxes, each in the order of `picture`.

    What stands in a page is not `alone`: the page brings the style and the longer words.
    """
    arriving = Counter(arrow.head for arrow in picture.arrows if arrow.label)
    entering = Counter(arrow.head for arrow in picture.arrows)
    labels = [label(arrow) for arrow in picture.arrows]
    longest: dict[int, float] = {}
    for arrow, name in zip(picture.arrows, labels, strict=True):
        longest[arrow.head] = max(longest.get(arrow.head, 0.0), _mono(name, SMALL) + 18)
    cards = []
    for box in picture.boxes:
        wanted = longest.get(box.key, 0.0) * entering[box.key]
        fits = bool(arriving[box.key]) and wanted <= _WIDEST
        cards.append(_card(box, wanted if fits else 0.0, fits))
    found = _laid(tuple(card.size for card in cards), tuple(picture.indexed()))
    above = heading(picture)
    top = _MARGIN + (34 if above else 0)
    below = list(_legend(picture, top + found.height + 30)) if legend else []
    wide = max(
        found.width + 2 * _MARGIN,
        _legend_width(picture) if legend else 0.0,
        len(above) and 2 * _MARGIN + width(above) * 16 * _SANS,
        240,
    )
    high = top + found.height + (74 if below else _MARGIN)
    said = _said(picture)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tg" role="img" '
        f'aria-label="{escape(said)}" '
        f'viewBox="0 0 {wide:.7g} {high:.7g}" width="{wide:.7g}" height="{high:.7g}">',
        f"<title>{escape(above or said)}</title>",
        *([f"<style>{STYLE}</style>"] if alone else []),
        f'<rect class="tg-page" width="{wide:.7g}" height="{high:.7g}"/>',
    ]
    if above:
        out.append(
            f'<text class="tg-heading" x="{_MARGIN:.7g}" y="{_MARGIN + 8:.7g}">'
            f"{escape(above)}</text>"
        )
    if not picture.boxes:
        out.append(
            f'<text class="tg-word" x="{_MARGIN:.7g}" y="{top + 4:.7g}">nothing was recorded</text>'
        )
    left = (wide - found.width) / 2 if found.width + 2 * _MARGIN < wide else _MARGIN
    out.append(f'<g class="tg-parts" transform="translate({left:.7g},{top:.7g})">')
    labelled = {card.box.key: card.labelled for card in cards}
    rings = {box.key: _RING if box.on_path else 0.0 for box in picture.boxes}
    parts = []
    for arrow, route, name in zip(picture.arrows, found.routes, labels, strict=True):
        shown = name if labelled[arrow.head] else ""
        inside = _arrow(arrow, route, shown, lift=rings[arrow.head], alone=alone)
        own = f' data-tail="{arrow.tail}" data-head="{arrow.head}"'
        across = [point.x for point in route]
        right = max(max(across), route[-1].x + 7 + _mono(shown, SMALL))
        area = (left + min(across) - 5, top + route[0].y, left + right + 5, top + route[-1].y)
        parts.append(Part(own, (inside,), area, int(arrow.on_path)))
    for card, place in zip(cards, found.places, strict=True):
        x, y = place.x + left, place.y + top
        around = (x - _RING, y - _RING, x + card.size.width + _RING, y + card.size.height + _RING)
        at = f"translate({place.x:.7g},{place.y:.7g})"
        own = f' data-key="{card.box.key}" transform="{at}"'
        parts.append(Part(own, tuple(_box(card, alone=alone)), around, 2, place))
    return Drawing("\n".join(out), tuple(parts), "\n".join(["</g>", *below, "</svg>\n"]))


@lru_cache(64)
def _laid(sizes: tuple[Size, ...], arrows: tuple[tuple[int, int], ...]) -> Layout:
    """The layout, which the turns of a loop share: widths come in steps so that they often agree."""
    return layered(sizes, arrows)


# Boxes


@dataclass(frozen=True, slots=True)
class _Card:
    """A box, its words, and the room that they take."""

    box: Box
    words: Words
    size: Size
    labelled: bool


def _card(box: Box, wanted: float, labelled: bool) -> _Card:
    cut = words(box)
    inner = max(
        22 + width(cut.title) * TITLE * _SANS + (22 + _mono(cut.badge, SMALL)) * bool(cut.badge),
        *(_mono(line, LINE) for line in cut.lines),
        (20 + _mono(cut.feedback, LINE)) * bool(cut.feedback),
    )
    slant = {"input": 24.0, "failure": 16.0, "output": 20.0}.get(box.role, 0.0)
    high = 36 + 17 * len(cut.lines) + 24 * bool(cut.feedback)
    wide = max(92.0, wanted, inner + 28 + slant)
    return _Card(box, cut, Size(-(-wide // _STEP) * _STEP, high), labelled)


def _box(card: _Card, *, alone: bool) -> Iterator[str]:
    """What a box is beside its own: its shape, which many have, and its words."""
    box, cut, (wide, high) = card.box, card.words, card.size
    tip = f"<title>{escape(tooltip(box))}</title>" if alone else ""
    classes = f"tg-box tg-{box.role}{' tg-way' * box.on_path}{' tg-hidden' * box.hidden}"
    pile = box.inside is not None
    yield f' class="{classes}">{tip}{_shape(box.role, wide, high, box.on_path, pile)}'
    left = _LEFT.get(box.role, 14.0)
    out = [f'<text class="tg-title" x="{left + 19:.7g}" y="23.5">{escape(cut.title)}</text>']
    if cut.badge:
        span = _mono(cut.badge, SMALL) + 12
        right = wide - left + 3
        out.append(
            f'<rect class="tg-badge" x="{right - span:.7g}" y="10.5" width="{span:.7g}" '
            f'height="17" rx="8.5"/><text class="tg-small" text-anchor="middle" '
            f'x="{right - span / 2:.7g}" y="22.5">{escape(cut.badge)}</text>'
        )
    y = 24.0
    for line in cut.lines:
        y += 17
        out.append(f'<text class="tg-line" x="{left:.7g}" y="{y:.7g}">{escape(line)}</text>')
    if cut.feedback:
        y += 10
        out.append(
            f'<rect class="tg-note" x="{left - 6:.7g}" y="{y:.7g}" '
            f'width="{wide - 2 * left + 12:.7g}" height="19" rx="4"/>'
            f'<path class="tg-back" d="M{left + 8:.7g} {y + 5.5:.7g}v2a3 3 0 0 1-3 3h-5'
            f'm3-3l-3 3 3 3"/>'
            f'<text class="tg-said" x="{left + 16:.7g}" y="{y + 13.5:.7g}">'
            f"{escape(cut.feedback)}</text>"
        )
    out.append("</g>")
    yield "".join(out)


@lru_cache(4_096)
def _shape(role: Role, wide: float, high: float, ring: bool, pile: bool) -> str:
    """The outlines and the sign of a box: with a `ring` of feedback, on a `pile` of boxes."""
    outline = _outline(role, wide, high, 0)
    out = [f'<path class="tg-ring" d="{_outline(role, wide, high, 4.5)}"/>'] * ring
    for step in (8, 4) if pile else ():
        out.append(
            f'<path class="tg-body tg-pile" transform="translate({step},{step})" d="{outline}"/>'
        )
    out.append(f'<path class="tg-body" d="{outline}"/>')
    if role == "parameter":
        out.append(f'<path class="tg-inner" d="{_outline(role, wide, high, -3.5)}"/>')
    out.append(_mark(role, _LEFT.get(role, 14.0) + 5, 19))
    return "".join(out)


@lru_cache(4_096)
def _outline(role: Role, wide: float, high: float, out: float) -> str:
    """The outline of a role as a path, moved outward by `out`."""
    l, t, r, b = -out, -out, wide + out, high + out  # noqa: E741
    if role == "input":
        s = 14.0
        return _polygon([(l + s, t), (r + out / 2, t), (r - s, b), (l - out / 2, b)])
    if role == "failure":
        s = min(11.0, high / 3)
        return _polygon(
            [
                (l + s, t), (r - s, t), (r, t + s), (r, b - s),
                (r - s, b), (l + s, b), (l, b - s), (l, t + s),
            ]
        )  # fmt: skip
    c = min({"parameter": 11.0, "output": 22.0}.get(role, 4.0), high / 2) + out
    c = max(c, 1.0)
    arc = f"A{c:.7g} {c:.7g} 0 0 1"
    return (
        f"M{l + c:.7g} {t:.7g}H{r - c:.7g}{arc} {r:.7g} {t + c:.7g}"
        f"V{b - c:.7g}{arc} {r - c:.7g} {b:.7g}"
        f"H{l + c:.7g}{arc} {l:.7g} {b - c:.7g}V{t + c:.7g}{arc} {l + c:.7g} {t:.7g}Z"
    )


def _polygon(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.7g} {y:.7g}" for x, y in points) + "Z"


def _mark(role: Role, x: float, y: float) -> str:
    """The small sign of a role, drawn, so that no font need have it."""
    path = {
        "parameter": "M0-5.5L5.5 0 0 5.5-5.5 0Z",
        "input": "M-5-4.5V4.5L4.5 0Z",
        "operation": "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0Z",
        "output": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0ZM-2 0a2 2 0 1 1 4 0a2 2 0 1 1-4 0Z",
        "failure": "M-4.5-4.5L4.5 4.5M4.5-4.5L-4.5 4.5",
    }[role]
    kind = "tg-cross" if role == "failure" else "tg-mark"
    return f'<path class="{kind}" transform="translate({x:.7g},{y:.7g})" d="{path}"/>'


# Arrows


def _arrow(arrow: Arrow, route: Sequence[Point], name: str, *, lift: float, alone: bool) -> str:
    end = Point(route[-1].x, route[-1].y - lift)
    stop = Point(end.x, end.y - _HEAD + 1)
    path = _line([*route[:-1], stop])
    way = " tg-way" if arrow.on_path else ""
    captured = " tg-captured" if arrow.captured else ""
    half = 5.0 if arrow.on_path else 3.8
    tip = _polygon([(end.x - half, end.y - _HEAD - 1), (end.x + half, end.y - _HEAD - 1), end])
    parts = [
        f' class="tg-arrow{way}{captured}">',
        f"<title>{escape(_arrow_tooltip(arrow))}</title>" if alone else "",
        f'<path class="tg-wire" d="{path}"/><path class="tg-tip" d="{tip}"/>',
    ]
    if arrow.on_path:
        x, y = route[0]
        parts.append(
            f'<path class="tg-up" d="M{x - 4.5:.7g} {y + 15:.7g}l4.5-4.5 4.5 4.5'
            f'm-9 6l4.5-4.5 4.5 4.5"/>'
        )
    if name:
        parts.append(
            f'<text class="tg-label" x="{end.x + 7:.7g}" y="{end.y - 6:.7g}">{escape(name)}</text>'
        )
    parts.append("</g>")
    return "".join(parts)


def _line(points: Sequence[Point]) -> str:
    """A line through `points`, straight along x or y with round corners, else curved."""
    path = [f"M{points[0].x:.7g} {points[0].y:.7g}"]
    for a, b in pairwise(points):
        if abs(a.x - b.x) < 0.05:
            path.append(f"V{b.y:.7g}")
        elif a.y == b.y:
            turn = min(_CORNER, abs(b.x - a.x) / 2)
            across = turn if b.x > a.x else -turn
            path[-1] = path[-1] if len(path) == 1 else f"V{a.y - turn:.7g}"
            path.append(
                f"Q{a.x:.7g} {a.y:.7g} {a.x + across:.7g} {a.y:.7g}H{b.x - across:.7g}"
                f"Q{b.x:.7g} {b.y:.7g} {b.x:.7g} {b.y + turn:.7g}"
            )
        else:
            bend = (b.y - a.y) * 0.55
            path.append(
                f"C{a.x:.7g} {a.y + bend:.7g} {b.x:.7g} {b.y - bend:.7g} {b.x:.7g} {b.y:.7g}"
            )
    return "".join(path)


def _arrow_tooltip(arrow: Arrow) -> str:
    words = [shorten(one_line(arrow.label), 200)] if arrow.label else []
    if arrow.captured:
        words.append("read inside, not passed")
    if arrow.on_path:
        words.append("feedback went back along it")
    return "; ".join(words)


# Legend


def _entries(picture: Picture) -> list[tuple[str, str]]:
    roles = {box.role for box in picture.boxes}
    called = dict(picture.words)
    entries = [(str(role), called.get(role, role)) for role in LOOKS if role in roles]
    if any(box.on_path for box in picture.boxes) or any(a.on_path for a in picture.arrows):
        entries.append(("way", called.get("way", "way of feedback")))
    if any(arrow.captured for arrow in picture.arrows):
        entries.append(("captured", "read inside"))
    return entries


def _legend_width(picture: Picture) -> float:
    return 2 * _MARGIN + sum(58 + width(word) * LINE * _SANS for _, word in _entries(picture))


def _legend(picture: Picture, y: float) -> Iterator[str]:
    entries = _entries(picture)
    if not entries:
        return
    yield (
        f'<g class="tg-legend" aria-hidden="true" data-wide="{_legend_width(picture):.7g}" '
        f'transform="translate({_MARGIN:.7g},{y:.7g})">'
    )
    x = 0.0
    for name, word in entries:
        yield f'<g transform="translate({x:.7g},0)">'
        role = next((role for role in LOOKS if role == name), None)
        if role:
            yield f'<g class="tg-{role}"><path class="tg-body" d="{_outline(role, 30, 18, 0)}"/>'
            yield f'<g transform="translate(15,9) scale(.8)">{_mark(role, 0, 0)}</g></g>'
        else:
            kind = "tg-way" if name == "way" else "tg-captured"
            yield f'<g class="tg-arrow {kind}"><path class="tg-wire" d="M0 9H30"/>'
            if name == "way":
                yield '<path class="tg-up" d="M17 4.500l-4.500 4.500 4.500 4.500"/>'
            yield "</g>"
        yield f'<text class="tg-word" x="38" y="13">{escape(word)}</text></g>'
        x += 58 + width(word) * LINE * _SANS
    yield "</g>"


def _said(picture: Picture) -> str:
    """The picture in one sentence, for a screen reader."""
    counts = Counter(box.role for box in picture.boxes)
    called = dict(picture.words)
    words = [
        f"{counts[role]} {called.get(role, role if counts[role] == 1 else _PLURAL[role])}"
        for role in LOOKS
        if counts[role]
    ]
    start = f"{heading(picture)}: " if picture.title else ""
    return f"{start}{', '.join(words) or 'nothing'}; {len(picture.arrows)} arrows"


def _mono(text: str, size: float) -> float:
    return width(text) * size * _MONO
