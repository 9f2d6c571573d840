"""Values on cards: escaped for notebooks, plain for terminals, whatever was said."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import tracegraph as tg
from optimizers import Budget, OptoPrime, fit
from optimizers.base import Change, Rejection, Update
from tests.view.pictures import calm, ugly
from tracegraph.view import Card, Difference, Facts, Spark, Table, Words, sparkline

ALLOWED = {"div", "b", "table", "tr", "td", "th", "pre", "span"}


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}


def printed(value: Any) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    console.print(value)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@calm
@given(ugly, ugly)
def test_no_words_become_elements_or_terminal_commands(one: str, other: str) -> None:
    card = Card(
        one,
        (
            Facts({one: other}),
            Words(one, other),
            Difference(one, one, other),
            Table(one, (one,), ((other,),)),
            Spark(one, (1.0, 2.0)),
        ),
    )
    found = _Tags(card.html())
    assert found.tags <= ALLOWED
    assert found.names <= {"style"}
    assert "\x1b[31m" not in printed(card)
    card.html().encode()


@calm
@given(st.lists(st.floats(), max_size=200), st.integers(1, 80))
def test_a_sparkline_is_no_wider_than_asked(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) <= width


def test_a_sparkline_rises_with_its_values_and_shows_the_last() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([*[0.0] * 99, 1.0], 10)[-1] == "█"
    assert sparkline([1.0, float("nan"), 2.0]) == "▁ █"


def test_a_parameter_shows_its_value_changes_and_feedback() -> None:
    prompt = tg.node("Be kind.\n<b>", trainable=True, name="prompt")
    prompt.assign("Be brief.\n<b>")
    (prompt + "!").backward("Too long")
    told = prompt._repr_mimebundle_()
    assert told["text/plain"] == repr(prompt)
    assert "-Be kind." in told["text/html"]
    assert "&lt;b&gt;" in told["text/html"]
    shown = printed(prompt)
    assert "+Be brief." in shown
    assert "Too long" in shown
    assert re.search(r"version +1\b", shown)


def test_an_update_shows_differences_and_rejections() -> None:
    prompt = tg.node("a\nb", trainable=True, name="prompt")
    update = Update(
        (Change("prompt", prompt, "a\nb", "a\nc", 1),),
        (Rejection("rate", 7.0, "it must be at most 1"),),
        reasoning="shorter is better",
    )
    shown = printed(update)
    assert "-b" in shown
    assert "+c" in shown
    assert "it must be at most 1" in shown
    assert "shorter is better" in update._repr_mimebundle_()["text/html"]
    assert "nothing changed" in printed(Update())


def test_a_training_shows_scores_and_what_happened() -> None:
    word = tg.node("no", trainable=True, name="word")
    result = fit(
        lambda question: word + "", [("a", "yes")] * 4,
        lambda example, output: (float(output == example[1]), "say yes"),
        optimizer=OptoPrime([word], llm=lambda _: '{"reasoning": "", "suggestion": {"word": "yes"}}'),
        budget=Budget(steps=1), batch_size=2, progress=False, perfect=1.0,
    )  # fmt: skip
    assert word.data == "yes"
    shown = printed(result)
    assert "0 -> 1" in shown
    assert "accepted" in shown
    assert "finished" in result._repr_mimebundle_()["text/html"]
