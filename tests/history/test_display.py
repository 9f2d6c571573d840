"""Kept runs look well in a terminal and in a notebook, whatever their words are."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import tracegraph as tg
from tracegraph.history.display import sparkline

HOSTILE = "<script>alert(1)</script> [bold]x[/bold] \x1b[31mred\x07 ]&amp;"


@pytest.fixture
def history(tmp_path: Path) -> Any:
    with tg.run(HOSTILE, store=tmp_path) as run:
        for number in range(4):
            run.step(score=number / 3, note=HOSTILE)
    return tg.History(tmp_path)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_tables_in_which_hostile_words_are_text(history: Any) -> None:
    for shown in (history, history.run()):
        read = Tags(shown._repr_html_())
        assert read.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
        assert "<script>alert(1)</script>" in read.text
        assert "\x1b" not in read.text
    assert "▁▃▆█" in read.text


def test_a_terminal_shows_tables_in_which_markup_is_text(history: Any) -> None:
    console = Console(width=200, file=io.StringIO())
    console.print(history, history.run())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]x[/bold]" in text
    assert "0.3333" in text
    assert "\x07" not in text


@given(st.lists(st.none() | st.floats(), max_size=200))
def test_a_sparkline_rises_with_its_numbers(values: list[float | None]) -> None:
    line = sparkline(values)
    assert len(line) == min(len(values), 60)
    if len(values) <= 60:
        known = [(v, c) for v, c in zip(values, line, strict=True) if c != " "]
        bars = [c for _, c in sorted(known, key=lambda pair: pair[0] or 0.0)]
        assert bars == sorted(bars)
