"""Tapes: what was recorded is replayed, and a cache never answers a second attempt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tracegraph.errors import NotRecorded, WrongModel
from tracegraph.history import Facts
from tracegraph.llm import Cached, LiteLLM, Recorded, Replay, Reply, Request, Scripted, Tape, Usage


class Point(BaseModel):
    x: int


def test_a_recording_is_replayed_equal(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    said = Reply('{"x": 1}\n"é"', None, Usage(3, 4), 0.25, "m", "stop")
    recorded = Recorded(Scripted([said, '{"x": 2}'], name="m"), path)
    first, second = recorded("Go"), recorded("Go", schema=Point, attempt=1)
    replay = Replay(path)
    assert replay("Go") == first == said
    assert replay("Go", schema=Point, attempt=1) == second
    assert second.parsed == Point(x=2)
    with pytest.raises(NotRecorded, match="attempt 2"):
        replay("Go", attempt=2)
    with pytest.raises(NotRecorded):
        replay("Go", temperature=1.0)


def test_a_cache_is_kept_in_a_file_and_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    said = Reply("a", usage=Usage(3, 4), cost=1.0)
    assert Cached(Scripted([said]), path)("Go").cost == 1.0
    again = Cached(Scripted([]), path)("Go")
    assert (again.text, again.cost, again.usage) == ("a", 0.0, Usage(0, 0))


def test_a_line_cut_off_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    model = Cached(Scripted(["a", "b"]), path)
    model("one"), model("two")
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for length in range(start + len(b'{"format":'), len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        assert len(Tape(path)) == 1
        assert Cached(Scripted(["again"]), path)("two").text == "again"
        assert Cached(Scripted([]), path)("two").text == "again"
        assert Cached(Scripted([]), path)("one").text == "a"


def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n")
    with pytest.raises(WrongModel, match="line 1"):
        Tape(path)
    assert path.read_text() == "my notes\n"
    path.write_text('{"format": 99, "key": "k"}\n')
    with pytest.raises(WrongModel, match="99"):
        Tape(path)
    with pytest.raises(NotRecorded, match="Recorded"):
        Replay(tmp_path / "missing.jsonl")


def test_no_key_reaches_a_tape() -> None:
    with pytest.raises(WrongModel, match="api_key"):
        Request.of("Go", api_key="sk-secret")
    model = LiteLLM("openai/m", api_key="sk-secret", api_base="http://u:sk-secret@h/v1?k=sk-secret")
    assert "sk-secret" not in Request.of("Go").canonical(model.name)


def test_a_failure_is_not_kept() -> None:
    model = Cached(Scripted([TimeoutError(), "a"]))
    with pytest.raises(TimeoutError):
        model("Go")
    assert model("Go").text == "a"


requests = st.builds(
    lambda text, attempt, temperature, named: Request.of(
        [{"role": "user", "content": text}], attempt=attempt, temperature=temperature, named=named
    ),
    st.text(alphabet="ab"),
    st.integers(0, 2),
    st.sampled_from([0.0, 1.0]),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 1)),
)


@given(requests, requests)
def test_two_requests_have_one_key_only_if_they_are_equal(one: Request, other: Request) -> None:
    assert (one.key("m") == other.key("m")) == (one == other)
    assert one.key("m") != one.key("n")


def test_a_timeout_is_no_part_of_the_key_and_the_order_of_options_neither() -> None:
    assert Request.of("Go", timeout=1.0).key("m") == Request.of("Go").key("m")
    assert Request.of("Go", a=1, b=2).key("m") == Request.of("Go", b=2, a=1).key("m")


def test_replies_lie_in_the_file_of_the_history_by_request_and_attempt(tmp_path: Path) -> None:
    with Facts("replies", tmp_path) as replies:
        model = Cached(Scripted(["bad", "good"], name="m"), replies)
        assert (model("Go").text, model("Go", attempt=1).text) == ("bad", "good")
    with Facts("replies", tmp_path) as replies:
        again = Cached(Scripted([], name="m"), replies)
        assert (again("Go").text, again("Go").cost, again("Go", attempt=1).text) == (
            "bad", 0.0, "good",
        )  # fmt: skip
        assert Replay(replies)("Go", attempt=1).text == "good"
        with pytest.raises(NotRecorded, match="attempt 2"):
            Replay(replies)("Go", attempt=2)
