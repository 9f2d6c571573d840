"""Random pictures, and a few real ones, for the tests of drawing."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from tracegraph.view import Arrow, Box, Picture, Role

calm = settings(deadline=None)  # a busy machine is no fault of the drawing
ROLES: tuple[Role, ...] = ("parameter", "input", "operation", "output", "failure")

# Any text that Python can hold: lone surrogates, control characters, marks, emoji, markup.
ugly = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "]]>",
            "<!-- -->",
            "&amp;",
            "\"'`",
            "\\",
            "\\N",
            "\\\\l\\r",
            "<b>bold</b>",
            " <i>x</i> ",
            "{a|b|<p>c}",
            "a\nb\r\nc\u2028d",
            "\x00\x1b[31mred\x1b[0m",
            "\ud800",
            "\ufffe",
            "\u202egnp.exe",
            "é" * 300,
            "👨‍👩‍👧" * 50,
            "e" + "\u0301" * 500,
        ]
    ),
)


@st.composite
def graphs(draw: st.DrawFn, largest: int = 24) -> tuple[int, list[tuple[int, int]]]:
    """A count and arrows without a cycle, among them double ones, long ones, and none."""
    count = draw(st.integers(1, largest))
    order = draw(st.permutations(range(count)))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    found = draw(st.lists(pairs.filter(lambda pair: pair[0] < pair[1]), max_size=3 * count))
    return count, [(order[a], order[b]) for a, b in found]


@st.composite
def pictures(draw: st.DrawFn, largest: int = 8) -> Picture:
    count, arrows = draw(graphs(largest))
    keys = draw(st.lists(st.integers(-5, 10**9), min_size=count, max_size=count, unique=True))
    boxes = tuple(
        Box(
            key=key,
            title=draw(ugly),
            lines=tuple(draw(st.lists(ugly, max_size=7))),
            role=draw(st.sampled_from(ROLES)),
            kind=draw(ugly),
            feedback=draw(ugly),
            on_path=draw(st.booleans()),
            tooltip=draw(ugly),
            hidden=draw(st.booleans()),
        )
        for key in keys
    )
    drawn = tuple(
        Arrow(
            tail=keys[tail],
            head=keys[head],
            label=draw(ugly),
            on_path=draw(st.booleans()),
            captured=draw(st.booleans()),
        )
        for tail, head in arrows
    )
    return Picture(boxes, drawn, draw(ugly))


def example() -> Picture:
    """A small workflow that shows every role, feedback, and a captured input."""
    boxes = (
        Box(
            key=1, title="prompt", role="parameter", kind="text", on_path=True, feedback="too long"
        ),
        Box(key=2, title="question", lines=("str  'Where?'",), role="input"),
        Box(key=3, title="style", role="parameter", kind="text", hidden=True),
        Box(key=4, title="llm", lines=("str  'Here.'",), on_path=True),
        Box(key=5, title="parse", lines=("ValueError: Here.",), role="failure"),
        Box(key=6, title="answer", role="output", on_path=True, feedback="too long"),
    )
    arrows = (
        Arrow(tail=1, head=4, label="prompt", on_path=True),
        Arrow(tail=2, head=4, label="question"),
        Arrow(tail=3, head=4, label="style", captured=True),
        Arrow(tail=4, head=5, label="text"),
        Arrow(tail=4, head=6, label="text", on_path=True),
        Arrow(tail=2, head=6, label="question"),
    )
    return Picture(boxes, arrows, "an example")
