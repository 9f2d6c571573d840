"""Answers in the form asked for, for forms that people have: nested, optional, unions, bounded numbers."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from tests.worlds.server import Answer, Server
from tracegraph.errors import BudgetExceeded, ModelFailed
from tracegraph.llm import Budgeted, LiteLLM, Price, Reply, Retrying, Scripted, Structured, Usage


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str] = Field(default_factory=list, max_length=3)


class Home(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    mood: Mood
    since: date | None = None
    rooms: dict[str, Annotated[float, Field(gt=0, multiple_of=0.5)]] = Field(default_factory=dict)
    either: int | str = 0


pets = st.one_of(
    st.builds(Cat, kind=st.just("cat"), lives=st.integers(0, 9)),
    st.builds(Dog, kind=st.just("dog"), tricks=st.lists(st.text(max_size=5), max_size=3)),
)
homes = st.builds(
    Home, pet=pets, mood=st.sampled_from(Mood), since=st.none() | st.dates(),
    rooms=st.dictionaries(st.text(max_size=4), st.integers(1, 20).map(lambda n: n / 2), max_size=2),
    either=st.integers() | st.text(max_size=6),
)  # fmt: skip
WRITTEN = {
    "plain": lambda text: text,
    "fenced": lambda text: f"```json\n{text}\n```",
    "in prose": lambda text: f"Sure {{smile}}:\n{text}\nDoes that help?",
    "behind thoughts": lambda text: f"<think>{{'mood': 'bad'}}</think>{text}",
    "with a last comma": lambda text: text[:-1] + ",}",
    "in Python": lambda text: repr(json.loads(text)),
}


@given(homes, st.sampled_from(sorted(WRITTEN)))
def test_whatever_fits_the_form_comes_back(home: Home, how: str) -> None:
    text = WRITTEN[how](home.model_dump_json())
    llm = Scripted([text])
    assert Structured(llm)("Go", schema=Home).parsed == home


GOOD = '{"pet": {"kind": "cat", "lives": 9}, "mood": "good"}'
WRONG = {
    "lives": ('{"pet": {"kind": "cat", "lives": 10}, "mood": "good"}', "less than or equal to 9"),
    "kind": ('{"pet": {"kind": "cow"}, "mood": "good"}', "kind"),
    "mood": ('{"pet": {"kind": "cat", "lives": 1}, "mood": "fine"}', "'good' or 'bad'"),
    "missing": ('{"pet": {"kind": "dog"}}', "mood: Field required"),
    "extra": (GOOD[:-1] + ', "cow": 1}', "cow: Extra inputs"),
    "tricks": (
        '{"pet": {"kind": "dog", "tricks": ["a", "b", "c", "d"]}, "mood": "bad"}',
        "at most 3",
    ),
    "rooms": (GOOD[:-1] + ', "rooms": {"hall": 0.3}}', "multiple of 0.5"),
    "since": (GOOD[:-1] + ', "since": "yesterday"}', "since"),
    "cut": (GOOD[:-20], "no JSON value"),
    "null": ("null", "valid dictionary"),
    "schema": (json.dumps(Home.model_json_schema()), "Field required"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_shown_with_the_reason_and_mended(name: str) -> None:
    text, reason = WRONG[name]
    llm = Scripted([text, GOOD])
    home = Structured(llm)("Go", schema=Home).parsed
    assert home == Home(pet=Cat(kind="cat", lives=9), mood=Mood.GOOD)
    assert llm.requests[1].messages[-2].text == text
    assert reason in llm.requests[1].messages[-1].text


@pytest.mark.parametrize("repairs", [0, 1, 2])
def test_no_more_repairs_than_allowed_and_all_of_them_are_paid_for(repairs: int) -> None:
    llm = Scripted([Reply("no", usage=Usage(10, 1), cost=0.5)] * 9)
    budget = Budgeted(
        llm, tokens=100_000, dollars=100.0, price=Price(0.001, 0.001), reply_tokens=50
    )
    reply = Structured(budget, repairs=repairs)("Go", schema=Home)
    asked = 1 + repairs
    assert (reply.parsed, len(llm.requests)) == (None, asked)
    assert (reply.usage, reply.cost) == (Usage(10 * asked, asked), 0.5 * asked)
    assert (budget.spent.calls, budget.spent.tokens, budget.spent.dollars) == (
        asked,
        11 * asked,
        0.5 * asked,
    )


def test_where_no_repair_can_be_had_what_was_paid_for_is_returned() -> None:
    for llm in (
        Budgeted(Scripted(["no", GOOD]), calls=1),
        Scripted(["no", ModelFailed("down", status=500)]),
    ):
        reply = Structured(llm)("Go", schema=Home)
        assert (reply.text, reply.parsed) == ("no", None)
    with pytest.raises(BudgetExceeded):
        Structured(Budgeted(Scripted(["no"]), calls=0))("Go", schema=Home)


@pytest.fixture
def served() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("supported", [True, False])
def test_a_provider_with_and_without_support(served: Server, supported: bool) -> None:
    """Where schemas are not taken none is sent, and the answer is read all the same."""
    served.answers = [
        Answer(status=429, headers={"Retry-After": "0"}),
        Answer(WRONG["mood"][0]),
        Answer(GOOD),
    ]
    inner = LiteLLM("openai/served", api_base=served.base, api_key="x", structured=supported)
    reply = Structured(Retrying(inner, wait=0.0))("Go", schema=Home)
    assert reply.parsed == Home(pet=Cat(kind="cat", lives=9), mood=Mood.GOOD)
    assert (len(served.requests), reply.usage) == (3, Usage(14, 6))
    sent: list[Any] = [request.get("response_format") for request in served.requests]
    if supported:
        assert all(
            form["json_schema"]["schema"]["properties"].keys() >= {"pet", "mood"} for form in sent
        )
    else:
        assert sent == [None] * 3
