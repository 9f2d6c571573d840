"""What every optimizer takes as parameters, and what a step promises."""

from __future__ import annotations

import collections
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Change, Optimizer, Partition, Proposal, Rejection, Update
from optimizers.base import collect
from tracegraph import StaleFeedbackWarning, bundle, model, node
from tracegraph.errors import DuplicateName, NotReached, OptimizerError, Rejected


class Fixed(Optimizer):
    """Proposes what it was told to."""

    def __init__(self, parameters: Any, **values: Any) -> None:
        super().__init__(parameters)
        self.values = values

    def propose(self, **options: Any) -> Proposal:
        return Proposal({self.named_parameters[n]: v for n, v in self.values.items()})


def text(name: str | None = None, value: str = "x") -> Any:
    return node(value, trainable=True, name=name)


@bundle(trainable=True)
def shared(x: Any) -> Any:
    return x


@bundle
def plain(x: Any) -> Any:
    return x


@model
class Agent:
    def __init__(self) -> None:
        self.prompt = text("prompt")
        self.tools = [text("tool"), {"k": text()}]

    @bundle(trainable=True)
    def act(self, x: Any) -> Any:
        return x


class Team(tg.Module):
    def __init__(self) -> None:
        self.lead = Agent()
        self.second = Agent()
        self.again = self.lead


# What may be passed


def test_parameters_in_every_shape_are_found_by_name() -> None:
    a, b, free = text("a"), text("b"), text()
    agent = Agent()
    in_agent = ["prompt", "tools[0]", "tools[1]['k']", "act"]
    table: list[tuple[Any, list[str]]] = [
        (a, ["a"]),
        ([a, b], ["a", "b"]),
        ((p for p in (b, a)), ["b", "a"]),
        ((a, [b, [free]]), ["a", "b", "str"]),
        ({"first": a, "rest": [b]}, ["first", "rest[0]"]),
        ({1: a}, ["[1]"]),
        ({"x": a, "y": b}.values(), ["a", "b"]),
        (collections.deque([a]), ["a"]),
        (tg.Seq(a, b), ["a", "b"]),
        (tg.Map({"k": a}), ["k"]),
        ([a, a], ["a"]),
        ([free, text()], ["str", "str_2"]),
        (shared, ["shared"]),
        (shared.parameters(), ["shared"]),
        ([a, *shared.parameters()], ["a", "shared"]),
        (agent, in_agent),
        (agent.act, ["act"]),
        ([agent.act, Agent().act], ["act", "act_2"]),
        ({"one": Agent().act, "two": Agent().act}, ["one", "two"]),
    ]
    for given, names in table:
        assert list(collect(given)) == names, given
    in_team = [f"{who}.{name}" for who in ("lead", "second") for name in in_agent]
    assert list(collect(Team())) == in_team


def test_a_set_is_taken_in_the_order_of_creation() -> None:
    parameters = [text(f"p{i}") for i in range(50)]
    assert list(collect(set(parameters))) == [p.label for p in parameters]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "at least one parameter"),
        ({}, "at least one parameter"),
        (None, "None"),
        ("prompt", "'prompt' \\(str\\) holds no parameter"),
        (3, "3 \\(int\\)"),
        ([None], "None \\(NoneType\\)"),
        (plain, "holds no parameter: pass parameters, trainable bundles or modules"),
        (Agent, "at least one parameter"),
    ],
)
def test_what_holds_no_parameter_is_refused(given: Any, said: str) -> None:
    with pytest.raises(OptimizerError, match=said):
        Fixed(given)


def test_one_foreign_object_among_parameters_is_named() -> None:
    a = text("a")
    with pytest.raises(OptimizerError, match=r"3 \(int\) holds no parameter"):
        Fixed([a, 3])
    with pytest.raises(OptimizerError, match=r"3 \(int\) under 'rate' holds no parameter"):
        Fixed({"prompt": a, "rate": 3})
    with pytest.raises(OptimizerError, match="is not trainable; make it with node"):
        Fixed([a, node("given")])
    with pytest.raises(OptimizerError, match="under 'b' holds no parameter: this node is not"):
        Fixed({"a": a, "b": a + "!"})


def test_two_parameters_of_one_given_name_are_refused_in_a_list_and_kept_apart_in_a_dict() -> None:
    with pytest.raises(DuplicateName, match="two parameters are named 'a'"):
        Fixed([text("a"), text("a")])
    with pytest.raises(DuplicateName, match="or a dict of modules"):
        Fixed([Agent(), Agent()])
    assert len(collect({"one": Agent(), "two": Agent()})) == 8


# Backward


def test_an_output_that_no_parameter_lies_behind_is_told() -> None:
    a, b = text("a"), text("b")
    optimizer = Fixed([a])
    with pytest.raises(NotReached, match="no parameter lies behind upper"):
        optimizer.backward(node("given").upper(), "no")
    with pytest.raises(NotReached, match="none of the parameters 'a' lies behind upper"):
        optimizer.backward(b.upper(), "no")
    with pytest.raises(NotReached):
        optimizer.backward([(b.upper(), "no"), (node(a.data).upper(), "no")])
    optimizer.backward([(b.upper(), "no"), (a.upper(), "yes")])
    assert a.feedback


def test_a_frozen_parameter_is_reached_and_receives_nothing() -> None:
    a = text("a")
    a.freeze()
    assert Fixed([a]).backward(a.upper(), "no") == {}
    assert not a.feedback


@pytest.mark.parametrize("outputs", ["text", 3, None, [3], [("a", "no")]])
def test_feedback_on_what_is_no_node_is_refused(outputs: Any) -> None:
    a = text("a")
    with pytest.raises(TypeError):
        Fixed([a]).backward(outputs, None)
    assert not a.feedback


def test_options_of_backward_are_checked() -> None:
    a = text("a")
    Fixed([a]).backward(a.upper(), "no", retain_graph=True)
    with pytest.raises(TypeError, match=r"Graph\.of\(node\)\.render"):
        Fixed([a]).backward(a.upper(), "no", visualize=True)
    with pytest.raises(TypeError, match="no option 'wieght'"):
        Fixed([a]).backward(a.upper(), "no", wieght=2)


# A step


def stepped(optimizer: Optimizer, **options: Any) -> Update:
    for parameter in optimizer.parameters:
        (parameter + 0 if parameter.kind.name == "number" else parameter.upper()).backward("no")
    return optimizer.step(**options)


def test_a_step_assigns_all_and_forgets_the_feedback() -> None:
    a, n = text("a"), node(1, trainable=True, name="n")
    update = stepped(Fixed([a, n], a="new", n=2))
    assert update.changes == (Change("a", a, "x", "new", 1), Change("n", n, 1, 2, 1))
    assert (a.data, n.data) == ("new", 2)
    assert not a.feedback
    assert not n.feedback
    assert str(update) == "a: 'x' -> 'new'\nn: 1 -> 2"


def test_one_rejected_value_assigns_nothing_and_the_feedback_stays() -> None:
    a, n = text("a"), node(1, trainable=True, name="n")
    update = stepped(Fixed([a, n], a="new", n="two"))
    assert not update
    assert update.rejections == (Rejection("n", "two", "expects a number, got a str 'two'"),)
    assert (a.data, a.version, n.data) == ("x", 0, 1)
    assert a.feedback
    assert str(update) == "n: rejected, expects a number, got a str 'two'"


def test_a_value_that_is_the_same_begins_no_version() -> None:
    a = text("a")
    assert not stepped(Fixed([a], a="x"))
    assert a.version == 0


def test_frozen_and_foreign_parameters_are_not_assigned() -> None:
    a, b, other = text("a"), text("b"), text("other")
    optimizer = Fixed([a, b])
    b.freeze()
    update = optimizer.settle(Proposal({a: "new", b: "new", other: "new"}))
    assert [(r.name, r.reason) for r in update.rejections] == [
        ("b", "it is frozen"),
        ("other", "it is no parameter of this optimizer"),
    ]
    assert (a.data, b.data, other.data) == ("x", "x", "x")


def test_without_feedback_nothing_is_proposed() -> None:
    a = text("a")
    update = Fixed([a], a="new").step()
    assert not update
    assert "no feedback has arrived" in str(update)
    assert a.data == "x"


def test_a_step_that_asks_nothing_says_what_is_frozen() -> None:
    a, b = text("a"), text("b")
    optimizer = Fixed([a, b], a="new")
    optimizer.backward(a + b, "no")
    a.freeze()
    b.zero_feedback()
    assert "no feedback has arrived" in str(optimizer.step())
    assert "('a': frozen, takes none)" in str(optimizer.step())
    b.freeze()
    for asked in (optimizer, Partition(optimizer)):
        optimizer.backward(a + b, "no")
        update = asked.step()
        assert not update
        assert "every parameter is frozen" in str(update)
    a.unfreeze()
    optimizer.backward(a + b, "no")
    assert optimizer.step()


def test_feedback_that_came_too_late_is_warned_of_where_the_program_gave_it() -> None:
    a = text("a")
    optimizer, other = Fixed([a], a="new"), text("other")
    for late in (
        lambda shout: optimizer.step(),
        lambda shout: Partition(optimizer, Fixed([other])).step(),
        lambda shout: shout.backward("no"),
        lambda shout: optimizer.backward([(shout, "no")]),
    ):
        shout = a.upper()
        optimizer.backward(shout, "no")
        a.assign(a.data + "!")
        with pytest.warns(StaleFeedbackWarning) as warned:
            late(shout)
        assert (warned[0].filename, warned[0].lineno) == (__file__, late.__code__.co_firstlineno)
        optimizer.zero_feedback()


def test_zero_feedback_and_zero_grad_forget() -> None:
    a = text("a")
    optimizer = Fixed([a], a="new")
    for forget in (optimizer.zero_feedback, optimizer.zero_grad):
        optimizer.backward(a.upper(), "no")
        forget()
        assert not a.feedback


def test_an_optimizer_that_raises_has_changed_nothing() -> None:
    class Broken(Fixed):
        def propose(self, **options: Any) -> Proposal:
            raise RuntimeError("broken")

    a = text("a")
    with pytest.raises(RuntimeError, match="broken"):
        stepped(Broken([a]))
    assert a.feedback


def test_rejected_carries_the_parameter_and_the_reason() -> None:
    n = node(1, trainable=True, name="n")
    with pytest.raises(Rejected) as caught:
        n.assign("two")  # type: ignore[arg-type]
    assert caught.value.parameter is n
    assert isinstance(caught.value, ValueError)
