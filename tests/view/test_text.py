from __future__ import annotations

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from tests.view.pictures import example, pictures
from tracegraph.view import Arrow, Box, Picture, Text, text
from tracegraph.view.plain import width as cells

slow = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@slow
@given(pictures(), st.integers(20, 120))
def test_no_line_is_wider_than_asked(picture: Picture, width: int) -> None:
    assert all(cells(line) <= width for line in text(picture, width=width).split("\n"))


@slow
@given(pictures())
def test_every_box_stands_once_in_full(picture: Picture) -> None:
    lines = text(picture, width=400).split("\n")[bool(picture.title) :]
    full = [line for line in lines if not line.endswith(("(above)", "(below)"))]
    assert len(full) == len(picture.boxes)


def test_the_example_reads_well() -> None:
    assert text(example(), width=60).split("\n") == [
        "an example",
        "#5 ✗ parse  ValueError: Here.",
        "└─ text: #4 ● llm  str  'Here.'",
        "   ├─ ↩ prompt: #1 ◆ prompt [text]  ↩ too long",
        "   ├─ question: #2 ▱ question  str  'Where?'",
        "   └─ (style): #3 ◆ style [text] (hidden)",
        "#6 ◎ answer  ↩ too long",
        "├─ ↩ text: #4 ● llm (above)",
        "└─ question: #2 ▱ question (above)",
    ]


def test_a_deep_chain_goes_on_below() -> None:
    count = 3_000
    boxes = tuple(Box(key=v, title=f"step {v}") for v in range(count))
    arrows = tuple(Arrow(tail=v, head=v + 1) for v in range(count - 1))
    lines = text(Picture(boxes, arrows), width=80).split("\n")
    assert max(map(cells, lines)) <= 80
    assert sum(line.endswith("(below)") for line in lines) > 10
    assert sum(f"step {count // 2}" in line for line in lines) in (1, 2)


def test_a_width_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        text(example(), width=10)


def test_rich_shows_the_same_words_and_reads_no_markup_from_them() -> None:
    picture = Picture((Box(key=1, title="[red]not red[/red]", role="parameter"),), (), "[b]t")
    out = io.StringIO()
    Console(file=out, width=60).print(Text(picture))
    assert out.getvalue().split("\n")[:2] == text(picture, width=60).split("\n")
    assert "[red]not red[/red]" in str(Text(picture))


def test_a_note_stands_above() -> None:
    shown = Text(example(), "[b]cut[/b]")
    out = io.StringIO()
    Console(file=out, width=80).print(shown)
    for told in (out.getvalue(), str(shown)):
        assert told.rstrip("\n") == f"[b]cut[/b]\n{text(example())}"


def test_rich_agrees_about_the_width_of_usual_words() -> None:
    for word in ("plain", "日本語", "naïve", "…", "◆●◎✗▱↩", "├─"):
        assert cells(word) == cell_len(word)
