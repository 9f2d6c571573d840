"""A recorded run that was written down and read back is the run, to whoever looks at it or walks it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings

import tracegraph as tg
from tests.properties.programs import Program, programs
from tracegraph import Graph, Node, Parameter, Problem
from tracegraph.errors import HistoryError
from tracegraph.failure import failed_node
from tracegraph.history.at_hand import AtHand
from tracegraph.history.traces import trace_data, trace_of
from tracegraph.node import next_id


def there_and_back(output: Any, hand: AtHand, *, since: int = 0) -> Any:
    return trace_of(json.loads(json.dumps(trace_data(output, hand, since=since))), hand)


def seen(node: Node[Any]) -> list[Any]:
    """All that is known of a run, in terms of places in it."""
    nodes = Graph.of(node).nodes
    at = {id(n): number for number, n in enumerate(nodes)}
    facts = [
        {k: seen(v) if k == "inner" else v for k, v in n.info.items() if k != "argument"}
        for n in nodes
    ]
    return [
        (n.data, n.op, n.operation is None or n.operation.doc, n.label, n.description, n.preview,
         [(name, at[id(i)]) for name, i in n.inputs.items()], fact)
        for n, fact in zip(nodes, facts, strict=True)
    ]  # fmt: skip


@settings(max_examples=50)
@given(programs(longest=15))
def test_what_is_read_back_is_the_run(program: Program) -> None:
    """Its values, operations, inner graphs and problem; feedback arrives at the same parameters."""
    starts = program.starting()
    leaves = [start._leaf() for start in starts if isinstance(start, Parameter)]  # as in a training
    since = next_id()
    values = program.run(starts)
    output = tg.node(values[-1])
    hand = AtHand({"starts": starts, "program": Program.run})
    again = there_and_back(output, hand, since=since)
    assert seen(again) == seen(output)
    assert problem(again) == problem(output)
    del leaves


def problem(output: Node[Any]) -> tuple[list[str], str]:
    """Where a remark on an output arrives, and the problem that an optimizer is given then."""
    received = list(output.backward("No."))
    text = str(Problem.of({p.name: p for p in received})) if received else ""
    for parameter in received:
        parameter.zero_feedback()
    return [p.name for p in received], text


@tg.bundle
def ask(model: Any, prompt: str, case: Any) -> str:
    """Ask a model."""
    return str(model(prompt, case))


@dataclass
class Case:
    text: str


def test_objects_are_found_again_where_the_program_holds_them() -> None:
    """Models, examples, constants, and functions of a module that the workflow names."""
    prompt, case = tg.node("Go", trainable=True, name="prompt"), Case("x")
    model = lambda prompt, case: prompt + case.text  # noqa: E731
    said = lambda text: text.lower()  # noqa: E731
    constant = tg.node("!", name="constant")

    def workflow(case: Case) -> Any:
        return tg.call_llm(said, ask(model, prompt, case) + constant)

    since = tg.node("later").id
    hand = AtHand({"parameters": {"prompt": prompt}, "workflow": workflow})
    data = trace_data(workflow(case), hand, since=since, given={"example": case})
    again = trace_of(json.loads(json.dumps(data)), hand, given={"example": case})
    held = {n.data if isinstance(n.data, str) else id(n.data) for n in Graph.of(again).nodes}
    assert held == {"Go", id(model), id(case), "Gox", "!", "Gox!", id(said), "gox!"}
    assert constant in Graph.of(again)
    assert again.operation is tg.call_llm.operation
    assert again.info["usage"].calls == 1
    assert again.inputs["system_prompt"].inputs["x"].operation is ask.operation


def test_no_way_goes_through_functions_of_torch() -> None:
    """Thousands of them would be met before what is a few steps further in the program."""

    class Net(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return client

    client, net = object(), Net(1, 1)
    hand = AtHand({"optimizer": torch.optim.Adam(net.parameters()), "held": {"net": net}})
    assert hand.way_to(client) is not None
    assert hand.way_to(net.weight) is not None
    assert len(hand.all_of(object)) < 200


def test_an_object_that_answers_nothing_is_passed_by() -> None:
    class Proxy:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("working outside of context")

    word, key = tg.node("a", trainable=True, name="word"), object()
    hand = AtHand({"held": {"proxy": Proxy(), "key": key, (1, 2): object(), "word": word}})
    assert hand.way_to(key) == "held['key']"
    assert hand.at("held['word']") is word


def test_two_functions_that_were_written_at_one_place_are_told_apart() -> None:
    def made(prompt: str) -> Any:
        parameter = tg.node(prompt, trainable=True, name=prompt)

        @tg.bundle
        def predict(prompt: str) -> str:
            return prompt.upper()

        return parameter, predict

    (one, first), (two, second) = made("one"), made("two")
    hand = AtHand({"held": [one, two], "functions": {"first": first, "second": second}})
    again = there_and_back(first(one) + second(two), hand)
    assert [n.operation for n in again.inputs.values()] == [first.operation, second.operation]
    third = made("three")[1]
    again = there_and_back(third(one), hand).operation
    assert again not in (first.operation, second.operation)
    assert again.code is third.operation.code


def test_a_gradient_goes_back_through_arithmetic_that_was_read_back() -> None:
    rate = tg.node(2.0, trainable=True, name="rate")
    output = abs(-rate) * 3 - rate**2 / 4
    again = there_and_back(output, AtHand({"rate": rate}))
    for made in (output, again):
        assert made.backward(tg.Gradient(1.0))[rate][tg.Gradient].value == 2.0


def test_a_failed_call_keeps_what_it_said() -> None:
    word = tg.node(1, trainable=True, name="word")
    with pytest.raises(ZeroDivisionError) as caught:
        word / 0
    node = failed_node(caught.value)
    again = there_and_back(node, AtHand({"word": word}))
    assert again.failure == node.failure
    assert again.create_feedback("full") == node.create_feedback("full")


def test_a_rule_of_ones_own_is_followed() -> None:
    @tg.bundle(rules={tg.Remark: lambda node, said: {"second": said}})
    def pick(first: str, second: str) -> str:
        return first + second

    one, two = (tg.node(n, trainable=True, name=n) for n in ("one", "two"))
    again = there_and_back(pick(one, two), AtHand({"held": [one, two, pick]}))
    assert list(again.backward("No.")) == [two]


@pytest.mark.parametrize(
    "value",
    [torch.ones(2, requires_grad=True), object(), {(1, 2)}, Case("x")],
    ids=lambda v: type(v).__name__,
)
def test_what_cannot_be_written_and_is_not_at_hand_is_refused(value: Any) -> None:
    word = tg.node("a", trainable=True, name="word")
    with pytest.raises(HistoryError):
        trace_data(ask(lambda *given: "x", word, value), AtHand({"word": word}))
    with pytest.raises(HistoryError, match="no plain data"):
        trace_data(word.upper(), AtHand({}))


def test_a_value_that_was_replaced_is_refused() -> None:
    word = tg.node("a", trainable=True, name="word")
    output = word.upper()
    word.assign("b")
    with pytest.raises(HistoryError, match="older version"):
        trace_data(output, AtHand({"word": word}))


PROGRAM = """
import json, sys
import tracegraph as tg
from tracegraph.history.at_hand import AtHand
from tracegraph.history.traces import trace_data, trace_of
class Model:
    def __call__(self, text): return text[::-1]
model, prompt = Model(), tg.node("Go", trainable=True, name="prompt")
@tg.bundle
def respond(model, prompt, text):
    "Ask."
    return model(prompt + text)
def workflow(text): return respond(model, prompt, text) + "."
hand = AtHand({"parameters": {"prompt": prompt}, "workflow": workflow})
if len(sys.argv) == 1:
    print(json.dumps(trace_data(workflow("x"), hand)))
else:
    output = trace_of(json.loads(sys.argv[1]), hand)
    print(output.data, [p.label for p in output.backward("No.")])
    print(output.inputs["x"].inputs["model"].data is model)
"""


def test_another_process_reads_it() -> None:
    def run(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *args], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(run()).split("\n")[:2] == ["xoG. ['prompt']", "True"]
