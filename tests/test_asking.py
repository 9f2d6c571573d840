"""A call of a language model is one recorded operation, and what it cost stands on its node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

import tracegraph as tg
from tests.worlds.server import Answer, Server
from tracegraph.errors import ModelFailed, WrongModel
from tracegraph.llm import LiteLLM, Reply, Scripted, Structured, Usage


class Verdict(BaseModel):
    good: bool


def paid(text: str, cost: float | None = 0.5) -> Reply:
    return Reply(text, usage=Usage(7, 3), cost=cost)


def test_the_call_is_a_node_with_its_usage_and_feedback_reaches_every_prompt() -> None:
    system = tg.node("Be kind.", trainable=True, name="system")
    question = tg.node("Who?", trainable=True, name="question")
    said = tg.call_llm(Scripted([paid("Ann")]), system, question, temperature=0.0)
    assert (said.data, said.op) == ("Ann", "call_llm")
    usage = said.info["usage"]
    assert (usage.calls, usage.tokens_in, usage.tokens_out, usage.cost) == (1, 7, 3, 0.5)
    assert set(said.backward("Say more.")) == {system, question}


def test_the_messages_and_options_that_are_sent() -> None:
    llm = Scripted(["a", "b"])
    tg.call_llm(llm, "s", "one", "two", temperature=0.5)
    tg.call_llm(llm, None, "alone")
    first, second = llm.requests
    assert [(m.role, m.text) for m in first.messages] == [
        ("system", "s"), ("user", "one"), ("user", "two"),
    ]  # fmt: skip
    assert first.options == {"temperature": 0.5}
    assert [m.role for m in second.messages] == ["user"]


def test_inside_a_bundle_the_cost_of_all_calls_stands_on_its_node() -> None:
    llm = Scripted([paid("a"), paid("b"), paid("c", None)])

    @tg.bundle
    def twice(prompt: str) -> str:
        return str(tg.call_llm(llm, prompt)) + str(tg.call_llm(llm, prompt))

    @tg.bundle
    def around(prompt: str) -> Any:
        return inner(prompt)

    @tg.bundle
    def inner(prompt: str) -> Any:
        return tg.call_llm(llm, prompt)

    both = twice("Go")
    assert both.data == "ab"
    assert (both.info["usage"].calls, both.info["usage"].cost) == (2, 1.0)
    outer = around("Go")
    assert (outer.info["usage"].calls, outer.info["usage"].cost) == (1, None)


def test_inside_a_traceable_bundle_it_is_a_node_of_its_own() -> None:
    @tg.bundle(traceable=True)
    def flow(prompt: Any) -> Any:
        return tg.call_llm(Scripted([paid("a")]), prompt).upper()

    said = flow("Go")
    assert said.inner is not None
    (asked,) = (n for n in tg.Graph.of(said.inner).nodes if n.op == "call_llm")
    assert asked.info["usage"].calls == 1
    assert "usage" not in said.info


def test_a_failure_is_a_failed_node_with_its_own_type() -> None:
    prompt = tg.node("Be kind.", trainable=True, name="prompt")
    with pytest.raises(ModelFailed, match="busy") as caught:
        tg.call_llm(Scripted([ModelFailed("busy", status=503)]), prompt)
    failed = tg.failed_node(caught.value)
    assert failed is not None
    assert set(failed.backward("Try later.")) == {prompt}


def test_an_answer_in_a_form() -> None:
    assert tg.call_llm(Scripted(['{"good": true}']), "Judge.", schema=Verdict).data == Verdict(
        good=True
    )
    with pytest.raises(ModelFailed, match="does not fit the schema: 'yes'") as caught:
        tg.call_llm(Scripted([paid("yes")]), "Judge.", schema=Verdict)
    failed = tg.failed_node(caught.value)
    assert failed is not None
    assert failed.info["usage"].cost == 0.5  # it was paid for all the same
    mended = Structured(Scripted([paid("yes"), paid("{'good': False}")]))
    said = tg.call_llm(mended, "Judge.", schema=Verdict)
    assert (said.data, said.info["usage"].cost) == (Verdict(good=False), 1.0)


def test_awaited_calls_keep_their_costs_apart() -> None:
    async def flow() -> list[Any]:
        async def one(number: int) -> Any:
            reply = Reply(str(number), usage=Usage(number, 0), cost=None)
            return await tg.acall_llm(Scripted([reply]), "Go")

        return await asyncio.gather(*(one(n) for n in range(5)))

    said = asyncio.run(flow())
    assert [(n.data, n.info["usage"].tokens_in) for n in said] == [(str(n), n) for n in range(5)]


@pytest.mark.parametrize("prompts", [(None,), ("",), (None, 3), (["text"],)])
def test_what_cannot_be_said_is_refused_and_nobody_is_asked(prompts: Any) -> None:
    llm = Scripted(["never"])
    with pytest.raises(WrongModel):
        tg.call_llm(llm, *prompts)
    assert llm.requests == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_over_http_the_usage_is_the_providers() -> None:
    with Server() as server:
        server.answers = [Answer("Ann")]
        llm = LiteLLM("openai/served", api_base=server.base, api_key="none")
        said = tg.call_llm(llm, "Be kind.", "Who?")
    usage = said.info["usage"]
    assert (said.data, usage.tokens_in, usage.tokens_out) == ("Ann", 7, 3)
