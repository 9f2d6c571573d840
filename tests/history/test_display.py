"""Kept runs look well in a terminal and in a notebook, whatever their words are."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tracegraph as tg

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
        given = shown._repr_mimebundle_()
        assert given["text/plain"] == repr(shown)
        read = Tags(given["text/html"])
        assert read.tags <= {"div", "b", "table", "tr", "th", "td", "span", "pre"}
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


def test_a_run_is_a_card_with_its_scores_and_what_changed(tmp_path: Path) -> None:
    prompt = tg.node("Say hello.", trainable=True, name="prompt")
    with tg.run("card", store=tmp_path) as run:
        run.step(prompt + "!", score=0.25)
        prompt.assign("Say <hi>.")
        word = tg.node("old", trainable=True, name="word")
        run.step(prompt + word, score=0.5)
        word.assign("new")
        run.step(prompt + word, score=0.5)
    kept = tg.History(tmp_path).run()
    console = Console(width=100, file=io.StringIO())
    console.print(kept)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    html = kept._repr_mimebundle_()["text/html"]
    for said in ("run 1 card: done", "▁██", "prompt, since the start", "-old"):
        assert said in told
        assert said in html
    assert "-Say hello." in told
    assert "+Say <hi>." in told
    assert "+Say &lt;hi&gt;." in html


def test_a_run_without_steps_is_a_card(tmp_path: Path) -> None:
    with tg.run("empty", store=tmp_path):
        pass
    kept = tg.History(tmp_path).run()
    console = Console(width=60, file=io.StringIO())
    console.print(kept)
    assert "run 1 empty: done" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "steps" in kept._repr_mimebundle_()["text/html"]
