"""What the stand-in reads and learns stands in the request; its pieces against what they say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from optimizers.demo.desk import Desk
from optimizers.demo.learning import induced, synthesised
from optimizers.demo.reading import read
from optimizers.demo.standin import StandIn
from tracegraph.problem import Problem

numbers = st.integers(0, 40)


@given(
    st.sampled_from(["x + y", "3 * x", "max(x, y) - 1", "min(x, 7)", "(x + 2) * y", "4"]),
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8),
)
def test_an_expression_that_is_found_gives_what_was_wanted(
    hidden: str, given_: list[tuple[int, int]]
) -> None:
    def value(expression: str, x: int, y: int) -> Any:
        return eval(expression, {"x": x, "y": y, "max": max, "min": min})

    found = synthesised(["x", "y"], [((x, y), value(hidden, x, y)) for x, y in given_])
    assert found is not None
    assert all(value(found, x, y) == value(hidden, x, y) for x, y in given_)


def test_what_no_expression_gives_is_not_found() -> None:
    assert synthesised(["x"], [((1,), 5), ((1,), 6)]) is None
    assert synthesised(["x"], []) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=8))
def test_rules_contradict_no_fact(pairs: list[tuple[str, str]]) -> None:
    facts = [(f"the {word}", label) for word, label in pairs]
    for word, label in induced(facts):
        assert all(answer == label for text, answer in facts if word in text.split())


def test_a_problem_is_read_as_it_is_written() -> None:
    desk = Desk(0, lambda messages: "none")
    output = desk.run(desk.train[0])
    output.backward([tg.Remark('topic should be "food"'), tg.Score(0.0)])
    reading = read(Problem.of(desk.parameters).text())
    assert set(reading.variables) == set(desk.parameters)
    assert reading.variables["hours_for"] == ("code", str(desk.code.data).rstrip())
    assert reading.remarks == (("ticket0", 'topic should be "food"'),)
    call = reading.calls[reading.calls["ticket0"].arguments["topic"]]
    assert call.operation == "topic_of"
    assert reading.value(call.arguments["message"]) == desk.train[0].text
    assert reading.value("topic_of0") == "none"


@pytest.mark.parametrize("request_", ["", "#Code\n#Feedback\n", "nonsense = (", "#Past\n -> \n"])
def test_a_request_that_says_nothing_gets_no_suggestion(request_: str) -> None:
    said = StandIn(spoiled=0.0).says([{"role": "user", "content": request_}])
    assert '"suggestion": {}' in said
