"""An answer in the form asked for: read strictly, then leniently, then mended at most twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from tests.worlds.server import Answer
from tracegraph.errors import WrongModel
from tracegraph.llm import Budgeted, LiteLLM, Reply, Scripted, Structured, Usage


class Point(BaseModel):
    x: int = Field(ge=0)
    label: str


FIRST = '{"x": 1, "label": "a"}'


@pytest.mark.parametrize(
    "text",
    [
        FIRST,
        f"```json\n{FIRST}\n```",
        f"Here it is: {FIRST} - I hope that it helps.",
        "{'x': 1, 'label': 'a',}",
        'I first thought {"x": -1, "label": "a"}, but: ' + FIRST,
    ],
)
def test_what_can_be_read_is_not_asked_for_again(text: str) -> None:
    llm = Scripted([text])
    assert Structured(llm)("Go", schema=Point).parsed == Point(x=1, label="a")


def test_a_repair_shows_the_model_its_answer_and_its_error() -> None:
    llm = Scripted(["None.", '{"x": -1, "label": "a"}', FIRST])
    reply = Structured(llm)("Go", schema=Point)
    assert reply.parsed == Point(x=1, label="a")
    second, third = (request.messages for request in llm.requests[1:])
    assert (second[-2].role, second[-2].text) == ("assistant", "None.")
    assert "no JSON value" in second[-1].text or "valid dictionary" in second[-1].text
    assert "x: Input should be greater than or equal to 0" in third[-1].text
    assert [m.text for m in third[:1]] == ["Go"]


def test_repairs_end_and_what_was_paid_for_is_returned() -> None:
    said = [Reply(f"no {n}", usage=Usage(2, 1), cost=0.25) for n in range(4)]
    llm = Scripted(said)
    reply = Structured(llm)("Go", schema=Point)
    assert (reply.text, reply.parsed, reply.cost, reply.usage) == ("no 2", None, 0.75, Usage(6, 3))
    assert len(llm.requests) == 3
    assert Structured(Scripted(["no"]), repairs=0)("Go", schema=Point).parsed is None
    for wrong in (3, -1, "two"):
        with pytest.raises(WrongModel, match="repairs"):
            Structured(llm, repairs=wrong)  # type: ignore[arg-type]


def test_without_a_schema_nothing_is_read_or_mended() -> None:
    assert Structured(Scripted(["no JSON"]))("Go").text == "no JSON"


def test_a_schema_as_a_mapping() -> None:
    schema = {"type": "object", "required": ["x"]}
    llm = Scripted(['{"y": 1}', "[1]", 'so: {"x": 2}'])
    assert Structured(llm)("Go", schema=schema).parsed == {"x": 2}
    assert "'x' is missing" in llm.requests[1].messages[-1].text
    assert "no JSON object" in llm.requests[2].messages[-1].text
    assert Structured(Scripted(["[1, 2]"]))("Go", schema={"type": "array"}).parsed == [1, 2]


@given(st.integers(0, 99), st.text(max_size=30), st.sampled_from(["", "Well: ", "```\n", "a {b} "]))
def test_a_point_comes_back_from_any_surroundings(x: int, label: str, before: str) -> None:
    text = before + json.dumps({"x": x, "label": label})
    assert Structured(Scripted([text]), repairs=0)("Go", schema=Point).parsed == Point(
        x=x, label=label
    )


def test_a_budget_counts_every_repair() -> None:
    llm = Budgeted(Scripted(["no", FIRST]), calls=2)
    assert Structured(llm)("Go", schema=Point).parsed is not None
    assert llm.spent.calls == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_over_http_truncated_empty_and_wrong_answers_are_mended(server: Any) -> None:
    server.answers = [Answer('{"x": 1, "lab', finish="length"), Answer(None), Answer(FIRST)]
    inner = LiteLLM("openai/served", api_base=server.base, api_key="none", structured=True)
    reply = Structured(inner)("Go", schema=Point)
    assert (reply.parsed, reply.usage) == (Point(x=1, label="a"), Usage(21, 9))
    assert all("json_schema" in str(r["response_format"]) for r in server.requests)
