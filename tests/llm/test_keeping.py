from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import Any

import pytest

from tracegraph.errors import ModelFailed
from tracegraph.llm import Cached, FromCallable, Reply, Request, Scripted, as_language_model
from tracegraph.llm.keeping import keeping


class Notes:
    """A keeper that notes what it is given, and gives what it was made with."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.kept = list(replies), list[tuple[str, str]]()

    def find(self, request: Request, model: str) -> Reply | None:
        return Reply.to(request, self.replies.pop(0)) if self.replies else None

    def keep(self, request: Request, model: str, reply: Reply) -> None:
        self.kept.append((model, reply.text))

    def part(self, name: str) -> Notes:
        return self


class Own:
    """A model of a person's own class, which asks one of ours."""

    name = "own"

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def ask(self, request: Request) -> Reply:
        reply: Reply = self.inner.ask(request)
        return reply

    async def aask(self, request: Request) -> Reply:
        reply: Reply = await self.inner.aask(request)
        return reply


def test_a_reply_is_kept_once_whoever_asks_within() -> None:
    notes, model = Notes(), as_language_model(Own(Scripted(["yes", "no"])))
    with keeping(notes):
        model.ask(Request.of("well?"))
        asyncio.run(model.aask(Request.of("well?")))
    assert notes.kept == [("own", "yes"), ("own", "no")]


def test_what_is_kept_is_given_and_nobody_is_asked() -> None:
    notes, model = Notes("before"), Scripted([])
    with keeping(notes):
        assert model("well?").text == "before"
    assert (model.requests, notes.kept) == ([], [])


def test_the_innermost_is_asked_first_and_all_that_lack_it_are_told() -> None:
    outer, inner, model = Notes("from outside"), Notes(), Scripted(["asked"])
    with keeping(outer), keeping(inner):
        assert [model("well?").text, model("well?").text] == ["from outside", "asked"]
    assert inner.kept == [("scripted", "from outside"), ("scripted", "asked")]
    assert outer.kept == [("scripted", "asked")]


def test_failures_are_not_kept_nor_what_a_cache_answers() -> None:
    notes = Notes()
    script = Scripted([ModelFailed("busy", status=503), "yes"])
    model = Cached(script)
    with keeping(notes):
        with pytest.raises(ModelFailed):
            model("well?")
        assert [model("well?").text, model("well?").text] == ["yes", "yes"]
    assert notes.kept == [("scripted", "yes")]


def test_a_keeper_is_seen_where_its_context_goes_and_nowhere_else() -> None:
    notes, model = Notes(), FromCallable(str.upper)
    with keeping(notes):
        inside = threading.Thread(target=copy_context().run, args=(model, "a"))
        outside = threading.Thread(target=model, args=("b",))
        for thread in (inside, outside):
            thread.start()
            thread.join()
    model("c")
    assert [text for _, text in notes.kept] == ["A"]
