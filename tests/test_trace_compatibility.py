"""Programs in the manner of Microsoft Trace's tutorials: only the imports differ."""

from __future__ import annotations

import copy
import importlib
import json
import pickle
from typing import Any

import pytest

import tracegraph
from optimizers import OptoPrime
from tracegraph import ExecutionError, Module, bundle, model, node, stop_tracing
from tracegraph.llm import Scripted
from tracegraph.module import is_module


def suggested(**values: Any) -> str:
    return json.dumps({"reasoning": "r", "answer": "a", "suggestion": values})


# Basics


def test_nodes_and_operators() -> None:
    a = node(4, name="a")
    b = node("text", name="b", description="some words")
    total = a + 3
    assert (total.data, a.name.partition(":")[0], b.description) == (7, "a", "some words")
    assert [parent.data for parent in total.parents] == [4, 3]
    assert (a.is_root, total.is_root, a.trainable) == (True, False, False)
    assert node(b).id == b.id
    assert a.py_name.isidentifier()
    assert a.py_name.startswith("a")
    assert [item.data for item in node([1, 2])] == [1, 2]
    assert node({"k": 1})["k"].data == 1
    assert b.upper().data == "TEXT"
    assert node("{} {}").format(a, b).data == "4 text"


def test_a_bundle_named_in_its_description() -> None:
    @bundle("[double] Multiply by two.")
    def twice(x: int) -> int:
        return 2 * x

    @bundle(description="[triple] Multiply by three.", traceable_code=True)
    def thrice(x: Any) -> Any:
        return 3 * x

    made = twice(node(2))
    assert (made.data, made.name.partition(":")[0]) == (4, "double")
    assert made.description is not None
    assert "Multiply by two." in made.description
    assert (thrice(node(2)).data, thrice(node(2)).op) == (6, "triple")


def test_feedback_reaches_parameters_and_can_be_given_again() -> None:
    x = node(1.0, trainable=True, name="x")
    y = x * 2
    y.backward("too small", retain_graph=True)
    y.backward("still too small", retain_graph=True, visualize=False, print_limit=10)
    assert "too small" in str(x.feedback)
    assert "still too small" in str(x.feedback)
    x.zero_feedback()
    assert not x.feedback


def test_drawing_has_another_place_and_the_error_names_it() -> None:
    x = node(1.0, trainable=True, name="x")
    with pytest.raises(TypeError, match=r"Graph\.of\(node\)\.render"):
        (x * 2).backward("no", visualize=True)
    with pytest.raises(TypeError, match="register_rule"):
        (x * 2).backward("no", propagator=object())
    assert not x.feedback
    assert "<svg" in tracegraph.Graph.of(x * 2).to_svg()


def test_tracing_can_be_stopped() -> None:
    x = node(1, trainable=True, name="x")
    with stop_tracing():
        y = x + 1
    assert y.data == 2
    assert y.parents == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("GRAPH", "stop_tracing"),
        ("ParameterNode", "called Parameter"),
        ("MessageNode", "every node is a Node"),
        ("ExceptionNode", "node.failure"),
        ("FunModule", "called Bundle"),
        ("apply_op", "called apply"),
    ],
)
def test_names_that_are_gone_say_what_to_use(name: str, said: str) -> None:
    with pytest.raises(ImportError, match=said):
        exec(f"from tracegraph import {name}")
    with pytest.raises(AttributeError):
        tracegraph.no_such_name


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        ("tracegraph.llm", "LLM", "as_language_model"),
        ("tracegraph.llm", "AutoGenLLM", "callable"),
        ("tracegraph.llm", "CustomLLM", "api_base"),
        ("tracegraph.llm", "DummyLLM", "Scripted"),
        ("optimizers", "OptoPrimeMulti", "Several"),
        ("optimizers", "OptoPrimeV2", "called OptoPrime"),
        ("optimizers", "AdamWW", "did you mean 'AdamW'"),
        ("tracegraph", "bundel", "did you mean 'bundle'"),
        ("tracegraph", "stop_trace", "did you mean 'stop_tracing'"),
        ("tracegraph.functions", "appned", "no 'appned'"),
    ],
)
def test_a_name_that_is_not_there_leads_to_the_one_that_is(
    place: str, name: str, said: str
) -> None:
    with pytest.raises((AttributeError, ImportError), match=said) as caught:
        getattr(importlib.import_module(place), name)
    assert len(str(caught.value)) < 200
    if "did you" in said:
        assert not hasattr(importlib.import_module(place), name)


def test_what_nodes_no_longer_have_says_where_it_is() -> None:
    with pytest.raises(AttributeError, match="Graph"):
        node(1).children
    with pytest.raises(AttributeError, match="zero_feedback"):
        (node(1) + 1).zero_feedback()


def test_values_are_written_by_hand() -> None:
    x = node("old", trainable=True, name="x")
    x._set("new")
    assert x.data == "new"


# Optimizing


def test_a_number_is_improved_by_words() -> None:
    x = node(-1.0, trainable=True, name="x")
    optimizer = OptoPrime([x], llm=Scripted([suggested(x=2.0), suggested(x=3.0)]))
    for _ in range(2):
        target = bundle(lambda v: v * v)(x)
        optimizer.zero_feedback()
        optimizer.backward(target, "Make it larger.")
        optimizer.step(verbose=True)
    assert x.data == 3.0


def test_a_trainable_function_is_rewritten() -> None:
    @bundle(description="[opposite] The opposite of a word.", trainable=True, trust=True)
    def opposite(word: str) -> str:
        """The opposite of a word."""
        return word

    code = 'def opposite(word):\n    """Other."""\n    return {"hot": "cold"}[word]'
    optimizer = OptoPrime(opposite.parameters(), llm=Scripted([suggested(opposite=code)]))
    out = opposite("hot")
    optimizer.zero_feedback()
    optimizer.backward(out, "It should be cold.")
    optimizer.step()
    assert opposite("hot").data == "cold"
    assert opposite.parameter is not None
    assert "cold" in opposite.parameter.data


def test_the_error_of_a_function_is_feedback() -> None:
    @bundle(trainable=True, trust=True)
    def pick(items: list[int]) -> int:
        """The first item."""
        return items[5]

    model_ = Scripted([suggested(pick="def pick(items):\n    return items[0]\n")])
    optimizer = OptoPrime(pick.parameters(), llm=model_)
    try:
        target = pick([1, 2])
        feedback: Any = "fine"
    except ExecutionError as error:
        target = error.exception_node
        feedback = target.create_feedback("full")
    assert "IndexError" in str(target.data)
    optimizer.zero_feedback()
    optimizer.backward(target, feedback)
    optimizer.step()
    assert pick([1, 2]).data == 1
    assert "<--- (IndexError)" in model_.requests[0].messages[-1].text


def test_an_agent_of_prompts_and_methods() -> None:
    @model
    class Agent:
        def __init__(self) -> None:
            self.instruction = node("Greet.", trainable=True, name="instruction")

        def __call__(self, name: str) -> Any:
            return self.say(self.instruction, name)

        @bundle(trainable=True, trust=True)
        def say(self, instruction: str, name: str) -> str:
            """Say something to somebody."""
            return f"{instruction} {name}"

    agent: Any = Agent()
    assert isinstance(agent.parameters(), list)
    assert len(agent.parameters()) == 2
    code = 'def say(self, instruction, name):\n    return f"{instruction}, {name}!"'
    llm = Scripted([suggested(instruction="Hello", say=code)])
    optimizer = OptoPrime(agent.parameters(), llm=llm, memory_size=0)
    out = agent("Ann")
    optimizer.zero_feedback()
    optimizer.backward(out, "Be kinder.")
    optimizer.step()
    assert agent("Ann").data == "Hello, Ann!"
    assert Agent()("Bob").data == "Greet. Bob"


def test_a_module_is_saved_loaded_and_copied(tmp_path: Any) -> None:
    class Net(Module):
        def __init__(self) -> None:
            self.prompt = node("a", trainable=True, name="prompt")

        def forward(self, x: str) -> Any:
            return self.prompt + x

    net = Net()
    net.save(tmp_path / "net.json")
    net.prompt._set("changed")
    twin = net.copy()
    assert twin.prompt is net.prompt
    net.load(tmp_path / "net.json")
    assert net("!").data == "a!"
    assert net.state_dict() == {"prompt": "a"}
    assert list(net.parameters_dict()) == ["prompt"]


def test_several_outputs_at_once() -> None:
    x = node("a", trainable=True, name="x")
    llm = Scripted([suggested(x="b")])
    optimizer = OptoPrime([x], llm=llm)
    for number in range(3):
        optimizer.backward(x + str(number), f"remark {number}")
    optimizer.step()
    asked = llm.requests[0].messages[-1].text
    assert all(f"remark {number}" in asked for number in range(3))


# What every node could do by name


@pytest.mark.parametrize(
    ("value", "method", "args", "expected"),
    [
        ([1, 2], "eq", ([1, 2],), True),
        ([1, 2], "neq", ([1, 2],), False),
        ("abc", "len", (), 3),
        (3, "getattr", ("real",), 3),
        ("abc", "call", ("upper",), "ABC"),
        ([3, 1], "call", ("index", 1), 1),
    ],
)
def test_methods_that_every_node_has(
    value: Any, method: str, args: tuple[Any, ...], expected: Any
) -> None:
    x = node(value, trainable=True, name="x")
    made = getattr(x, method)(*args)
    assert made.data == expected
    assert list(made.backward("no")) == [x]


def test_a_method_of_the_value_comes_first() -> None:
    class Phone:
        def call(self, number: int) -> str:
            return f"calling {number}"

    assert node(Phone()).call(7).data == "calling 7"


def test_an_answer_that_cannot_be_unpacked_is_a_failed_step() -> None:
    @bundle(trainable=True)
    def answer(question: str) -> Any:
        return None

    with pytest.raises(ExecutionError, match="not iterable") as caught:
        _first, _second = answer("Who?")
    assert isinstance(caught.value, TypeError)
    received = caught.value.exception_node.backward(caught.value.exception_node.create_feedback())
    assert list(received) == answer.parameters()
    with pytest.raises(ExecutionError):
        list(node(5))


def test_a_trainable_function_is_saved_by_itself(tmp_path: Any) -> None:
    @bundle(trainable=True)
    def length(text: str) -> int:
        return len(text)

    length.save(tmp_path / "length.json")  # type: ignore[attr-defined]
    length.parameter.assign("def length(text):\n    return 0")  # type: ignore[union-attr]
    assert length("abc").data == 0
    length.load(tmp_path / "length.json")  # type: ignore[attr-defined]
    assert length("abc").data == 3


def test_parameters_are_found_in_keys() -> None:
    held = tracegraph.Map({node("k", trainable=True, name="k"): node(1, trainable=True, name="v")})
    assert [p.label for p in held.parameters()] == ["k", "v"]
    made = bundle(lambda table: list(table.items()))(held)
    assert made.data == [("k", 1)]
    assert {p.label for p in made.backward("no")} == {"k", "v"}


# What the page says to be different


def test_an_argument_that_was_left_out_is_no_input() -> None:
    style = node("kind", trainable=True, name="style")

    @bundle
    def letter(text: str, style: Any = style, end: str = ".") -> str:
        return f"{style} {text}{end}"

    made = letter("hello")
    assert made.data == "kind hello."
    assert list(made.backward("no")) == [style]
    assert [parent.data for parent in made.parents] == ["hello", "kind"]


def test_a_trainable_function_has_its_own_name() -> None:
    @bundle(trainable=True)
    def shorten(text: str) -> str:
        return text[:3]

    made = shorten("hello")
    assert shorten.parameter is not None
    assert (made.op, shorten.parameter.label) == ("shorten", "shorten")


def test_model_keeps_the_class() -> None:
    @model
    class Agent:
        """Answers."""

        def __init__(self) -> None:
            self.prompt = node("a", trainable=True)

    assert (Agent.__name__, Agent.__doc__) == ("Agent", "Answers.")
    assert not isinstance(Agent(), Module)
    assert is_module(Agent())


def test_the_parent_of_a_trainable_value_is_the_value() -> None:
    x = node("a", trainable=True, name="x")
    made = x + "!"
    x.assign("b")
    assert made.parents[0].data == "a"
    assert made.parents[0].parameter is x

    class Speaker:
        @bundle
        def say(self, text: str) -> str:
            return text

    assert [p.data for p in Speaker().say("hi").parents] == ["hi"]


def test_no_node_is_pickled_and_every_node_is_copied() -> None:
    x = node([1], trainable=True, name="x")
    for held in (x, x[0], [x], tracegraph.Seq(x)):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(held)
        copy.deepcopy(held)
    assert copy.deepcopy(x) is not x
