"""Overlays: other values here, the same parameters elsewhere."""

from __future__ import annotations

import asyncio
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tracegraph as tg


@pytest.fixture
def word() -> tg.Parameter[str]:
    return tg.node("plain", trainable=True, name="word")


@tg.bundle
def shout(text: str) -> str:
    """In capitals."""
    return text.upper()


@tg.bundle(trainable=True)
def double(x: int) -> int:
    """Twice."""
    return 2 * x


def test_every_way_of_reading_gives_the_lent_value(word: Any) -> None:
    @tg.bundle
    def captured() -> str:
        """Reads the parameter without being given it."""
        return word.data + word.upper() + "".join(word)

    def readings() -> list[Any]:
        return [
            word.data, str(word), f"{word}", len(word), "l" in word, word == "lent", (word + "!").data,
            word.upper().data, word[0].data, [c.data for c in word], shout(word).data,
            shout([word, word][0]).data, captured().data, tg.unwrap({"k": word}), repr(word),
        ]  # fmt: skip

    with tg.Overlay({word: "lent"}), tg.stop_tracing():
        quiet = (word + "!").data
    with tg.Overlay({word: "lent"}):
        inside = readings()
    word.assign("lent")
    direct = [str(r).replace("version 1", "") for r in readings()]
    assert quiet == "lent!"
    assert [str(r).replace("version -", "").replace("version 1", "") for r in inside[:-1]] == (
        direct[:-1]
    )
    assert "'lent'" in inside[-1]


def test_threads_see_their_own_values_and_the_rest_sees_none(word: Any) -> None:
    together = threading.Barrier(8)

    def run(text: str) -> list[str]:
        overlay = tg.Overlay({word: text})
        seen = []
        for _ in range(50):
            with overlay:
                if not seen:
                    together.wait(10)
                seen.append(shout(word).data)
        return seen

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(run, "abcdefgh"))
    assert [set(seen) for seen in found] == [{c.upper()} for c in "abcdefgh"]
    assert (word.data, word.version) == ("plain", 0)


def test_tasks_see_their_own_values(word: Any) -> None:
    async def run(text: str) -> str:
        with tg.Overlay({word: text}):
            await asyncio.sleep(0)
            return str(word.data)

    async def both() -> list[str]:
        return await asyncio.gather(run("a"), run("b"))

    assert asyncio.run(both()) == ["a", "b"]


def test_feedback_belongs_to_the_values_it_is_about(word: Any) -> None:
    first, second = tg.Overlay({word: "one"}), tg.Overlay({word: "two"})
    with first:
        output = shout(word)
        output.backward("about one")
        assert str(word.feedback[tg.Remark]) == "about one"
    with second:
        assert not word.feedback
    assert not word.feedback
    for context in (second, tg.Overlay({})):
        with context, pytest.warns(tg.StaleFeedbackWarning):
            output.backward("too late")
    with first:
        word.zero_feedback()
        assert not word.feedback


def test_an_assignment_within_stays_within(word: Any) -> None:
    overlay = tg.Overlay({word: "lent"})
    with overlay:
        word.assign("changed")
        assert word.data == "changed"
    assert (word.data, word.version) == ("plain", 0)
    with overlay:
        assert word.data == "changed"


def test_overlays_nest_and_end_when_an_error_ends_them(word: Any) -> None:
    other = tg.node(1, trainable=True, name="other")
    with pytest.raises(KeyError), tg.Overlay({word: "outer", other: 2}):  # noqa: PT012
        with tg.Overlay({word: "inner"}):
            assert (word.data, other.data) == ("inner", 2)
        assert word.data == "outer"
        raise KeyError
    assert (word.data, other.data) == ("plain", 1)


def test_code_runs_as_the_overlay_says_and_untrusted_code_away_from_here() -> None:
    text = double.parameter.data
    assert double.parameter is not None
    written = text.replace("2 * x", "3 * x")
    with tg.Overlay({double.parameter: written}, origin="person"):
        assert double(2).data == 6
    with tg.Overlay({double.parameter: written}):
        assert not double.parameter.trusted
    with tg.Overlay({double.parameter: text}):
        assert double.parameter.trusted  # it is what stands there anyway
    assert double(2).data == 4


def test_a_value_that_is_not_taken_changes_nothing(word: Any) -> None:
    with pytest.raises(tg.Rejected, match="expects text"):
        tg.Overlay({word: 3})
    with pytest.raises(TypeError, match="overlay is for parameters"):
        tg.Overlay({"word": "text"})  # type: ignore[dict-item]


def test_without_an_overlay_nothing_is_asked(word: Any) -> None:
    from tracegraph.recorder import current

    assert current() is None
    with tg.Overlay({word: "lent"}):
        assert current() is not None
    assert current() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shout(word).backward("fine")
    assert word.feedback
