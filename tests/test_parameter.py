"""Versioned cells: what a parameter takes, remembers and forgets."""

import copy
import dataclasses
import enum
import functools
import gc
import math
import sys
import threading
import warnings
import weakref
from typing import Annotated, Literal

import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from tracegraph import node
from tracegraph.feedback import Gradient


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Settings(pydantic.BaseModel):
    rate: float = pydantic.Field(ge=0, le=1)
    name: str = "a"


KINDS = [
    ("text", "text"),
    (1, "number"),
    (0.5, "number"),
    (np.float64(0.5), "number"),
    (True, "choice"),
    (Colour.RED, "choice"),
    ([1, 2], "json"),
    ((1, 2), "json"),
    ({"a": 1}, "json"),
    ({1, 2}, "json"),
    (None, "json"),
    (Point(1), "json"),
    (Settings(rate=0.5), "json"),
    (np.zeros(3), "tensor"),
    (torch.zeros(3), "tensor"),
]


@pytest.mark.parametrize(("value", "kind"), KINDS, ids=[str(type(v).__name__) for v, _ in KINDS])
def test_every_kind_is_told_by_its_value(value, kind):
    parameter = node(value, trainable=True, name="p")
    assert parameter.kind.name == kind
    assert parameter.data is value
    assert parameter.trainable
    assert parameter.version == 0
    assert not parameter.feedback
    assert isinstance(parameter, tg.Parameter)
    assert "p" in repr(parameter)


def test_a_foreign_object_is_refused_by_name():
    class Engine:
        pass

    with pytest.raises(tg.ParameterError, match="Engine"):
        node(Engine(), trainable=True)


WRONG = [
    ("text", 3),
    ("text", None),
    ("text", ["a"]),
    ("text", b"a"),
    (1, 2.9),
    (1, "2"),
    (1, True),
    (1, None),
    (1, math.nan),
    (0.5, "0.7"),
    (0.5, math.inf),
    (0.5, True),
    (0.5, 1j),
    (True, "no"),
    (True, 0),
    (True, None),
    (Colour.RED, "green"),
    (Colour.RED, "red"),
    ([1], "one, two"),
    ([1], {"a": 1}),
    ([1], (1,)),
    ((1,), [1]),
    ({"a": 1}, [1]),
    ({1}, [1]),
    (Point(1), {"x": 1}),
    (Settings(rate=0.5), {"rate": 0.5}),
    (np.zeros(3), [0, 0, 0]),
    (np.zeros(3), np.zeros(4)),
    (np.zeros(3), np.zeros(3, dtype=np.float32)),
    (torch.zeros(3), [0, 0, 0]),
    (torch.zeros(3), torch.zeros(4)),
    (torch.zeros(3), torch.zeros(3, dtype=torch.float64)),
    (torch.zeros(3), np.zeros(3)),
]


@pytest.mark.parametrize(("initial", "value"), WRONG, ids=[f"{a!r}<-{b!r}" for a, b in WRONG])
def test_a_value_of_another_type_is_refused_and_nothing_changes(initial, value):
    parameter = node(initial, trainable=True, name="p")
    parameter.receive(tg.Remark("x"), {}, 0)
    with pytest.raises(tg.Rejected) as caught:
        parameter.assign(value)
    assert caught.value.parameter is parameter
    assert "p" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert parameter.data is initial
    assert parameter.version == 0
    assert parameter.feedback


READ = [
    (0.5, 1, 1.0),
    (0.5, "0.7", 0.7),
    (1, "2", 2),
    (1, 2, 2),
    (True, False, False),
    (True, "false", False),
    ("a", "true", "true"),
    ("a", "[1]", "[1]"),
    ([1], "[1, 2]", [1, 2]),
    ([1], [3], [3]),
    ((1,), [3], (3,)),
    ({1}, [3], {3}),
    ({"a": 1}, '{"b": 2}', {"b": 2}),
    ({"a": 1}, "{'b': 2}", {"b": 2}),
]


@pytest.mark.parametrize(("initial", "raw", "value"), READ)
def test_reading_a_reply_gives_typed_values(initial, raw, value):
    parameter = node(initial, trainable=True)
    got = parameter.read(raw)
    assert got == value
    assert type(got) is type(value)


UNREADABLE = [
    (True, "no"), (True, "yes"), (True, 1), (True, "1"), (1, 2.9), (1, "2.9"), (1, "two"),
    (1, None), (0.5, "half"), (0.5, "nan"), (0.5, [1]), ([1], "one, two"), ([1], "abc"),
    ({"a": 1}, "a: 1"), ("a", 5), ("a", {"x": 1}), ("a", None), (1, True), (0.5, "true"),
]  # fmt: skip


@pytest.mark.parametrize(("initial", "raw"), UNREADABLE)
def test_what_cannot_be_read_is_refused_never_guessed(initial, raw):
    parameter = node(initial, trainable=True)
    with pytest.raises(tg.Rejected):
        parameter.read(raw)


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())
    )
)
def test_reading_never_changes_the_type(raw):
    for initial in ("text", 1, 0.5, True, [1], {"a": 1}):
        parameter = node(initial, trainable=True)
        try:
            value = parameter.read(raw)
        except tg.Rejected:
            continue
        assert type(value) is type(initial)


def test_a_float_parameter_takes_a_whole_number_and_stays_a_float():
    rate = node(0.5, trainable=True)
    rate.assign(1)
    assert rate.data == 1
    assert (rate / 2).data == 0.5
    rate.assign(0.25)


@pytest.mark.parametrize("initial", [5, 5.0])
@pytest.mark.parametrize("large", [10**400, -(10**5_000)], ids=["400 digits", "5,000 digits"])
def test_a_number_too_large_for_a_float_is_refused(initial, large):
    number = node(initial, trainable=True, name="number")
    for take in (number.assign, number.read):
        with pytest.raises(tg.Rejected, match=r"at most 1\.8e\+308, got <int of"):
            take(large)
    assert (number.data, number.version) == (initial, 0)
    with pytest.raises(tg.Rejected, match="at most"):
        node(large, trainable=True)


def test_an_enum_is_read_by_name_or_value():
    colour = node(Colour.RED, trainable=True, constraint=Colour)
    assert colour.read("BLUE") is Colour.BLUE
    assert colour.read("blue") is Colour.BLUE
    plain = node(Colour.RED, trainable=True)
    assert plain.read("blue") is Colour.BLUE
    assert plain.read("BLUE") is Colour.BLUE
    with pytest.raises(tg.Rejected):
        plain.read("green")


def test_pydantic_and_dataclass_values_are_read_from_json():
    settings = node(Settings(rate=0.5), trainable=True)
    assert settings.read({"rate": 0.25}) == Settings(rate=0.25)
    with pytest.raises(tg.Rejected):
        settings.read({"rate": 5})
    point = node(Point(1), trainable=True)
    assert point.read({"x": 3, "y": 4}) == Point(3, 4)
    with pytest.raises(tg.Rejected):
        point.read({"x": "three"})


def test_versions_and_leaves():
    prompt = node("a", trainable=True, name="prompt")
    before = prompt + "!"
    again = prompt + "?"
    assert before.parents[0] is again.parents[0]
    assert before.parents[0].version == 0
    prompt.assign("b")
    after = prompt + "!"
    assert (before.data, after.data) == ("a!", "b!")
    assert before.parents[0].data == "a"
    assert after.parents[0].version == 1
    assert after.parents[0].parameter is prompt
    assert after.parents[0].name.startswith("prompt:")


def test_feedback_for_an_older_version_never_changes_a_newer_one():
    prompt = node("a", trainable=True, name="prompt")
    old = prompt + "!"
    prompt.assign("b")
    with pytest.warns(tg.StaleFeedbackWarning, match="prompt"):
        assert not old.backward("late")
    assert not prompt.feedback
    with pytest.raises(tg.StaleFeedback, match="prompt"):
        old.backward("late", strict=True)
    assert (prompt + "!").backward("now")[prompt]


def test_new_feedback_after_a_change_replaces_the_old():
    prompt = node("a", trainable=True, name="prompt")
    (prompt + "!").backward("old")
    prompt.assign("b")
    (prompt + "!").backward("new")
    assert str(prompt.feedback[tg.Remark]) == "new"
    assert prompt.feedback.version == 1


def test_feedback_of_two_types_of_different_versions():
    prompt = node("a", trainable=True, name="prompt")
    (prompt + "!").backward(0.5)
    prompt.assign("b")
    (prompt + "!").backward("words")
    assert set(prompt.feedback) == {tg.Remark}


def test_freezing():
    prompt = node("a", trainable=True, name="prompt")
    prompt.freeze()
    assert not prompt.trainable
    assert not (prompt + "!").backward("x")
    prompt.unfreeze()
    assert (prompt + "!").backward("x")


def test_a_parameter_is_freed_with_its_graph():
    gc.disable()
    try:
        prompt = node("a", trainable=True)
        result = prompt + "!"
        refs = [weakref.ref(prompt), weakref.ref(result), weakref.ref(result.parents[0])]
        del prompt, result
        assert [r() for r in refs] == [None, None, None]
        prompt = node("a", trainable=True)
        result = prompt + "!"
        result.backward("x")
        prompt.zero_feedback()
        ref = weakref.ref(result)
        del result
        assert ref() is None
    finally:
        gc.enable()


def test_feedback_keeps_its_outputs_until_it_is_zeroed():
    prompt = node("a", trainable=True)
    (prompt + "!").backward("x")
    gc.collect()
    assert [n.data for n in prompt.feedback.outputs.values()] == ["a!"]


def test_node_of_a_node():
    x = node(1, name="x")
    assert node(x) is x
    p = node(x, trainable=True)
    assert isinstance(p, tg.Parameter)
    assert p.data == 1
    assert p.given_name == "x"
    q = node(p, trainable=True, name="q")
    assert q is not p
    assert q.given_name == "q"
    assert node(p) is p
    r = node([x, {"a": x}], trainable=True)
    assert r.data == [1, {"a": 1}]


def test_wrong_arguments_of_node():
    with pytest.raises(TypeError, match="name"):
        node(1, name=5)
    with pytest.raises(TypeError, match="description"):
        node(1, description=5)
    with pytest.raises(TypeError, match="trainable"):
        node(1, constraint=int)
    with pytest.raises(tg.Rejected):
        node(1.5, trainable=True, constraint=Annotated[float, pydantic.Field(le=1)])
    with pytest.raises(TypeError):
        node(1, colour="red")


def test_copies_are_independent_and_copies_of_modules_share():
    prompt = node(["a"], trainable=True, name="prompt", constraint=list[str])
    twin = copy.deepcopy(prompt)
    assert twin is not prompt
    assert isinstance(twin, tg.Parameter)
    twin.data.append("b")
    assert prompt.data == ["a"]
    assert twin.given_name == "prompt"
    with pytest.raises(tg.Rejected):
        twin.assign([1])
    assert copy.copy(prompt) is prompt


def test_in_place_changes_are_announced_by_bump():
    weight = node(torch.zeros(2), trainable=True, name="weight")
    before = weight * 2
    with torch.no_grad():
        weight.data.add_(1)
    weight.bump()
    assert weight.version == 1
    with pytest.warns(tg.StaleFeedbackWarning):
        before.backward("x")


def test_an_assigned_node_gives_its_value():
    prompt = node("a", trainable=True)
    prompt.assign(node("b"))
    assert prompt.data == "b"
    assert type(prompt.data) is str


def test_assigning_keeps_who_wrote_it():
    prompt = node("a", trainable=True)
    prompt.assign("b", origin="optimizer")
    assert (prompt.origin, prompt.trusted) == ("optimizer", False)
    prompt.trust()
    assert prompt.trusted
    prompt.assign("c")
    assert (prompt.origin, prompt.trusted) == ("person", True)


@pytest.mark.parametrize(
    "wrong", [{"origin": "robot"}, {"trusted": "no"}, {"trusted": []}], ids=str
)
def test_who_wrote_a_value_is_said_in_words_that_are_known(wrong):
    prompt = node("a", trainable=True)
    with pytest.raises(TypeError, match="origin is 'person' or 'optimizer' and trusted is True or"):
        prompt.assign("b", **wrong)
    assert (prompt.data, prompt.version) == ("a", 0)


def test_literal_choices():
    style = node("short", trainable=True, name="style", constraint=Literal["short", "long"])
    assert style.kind.name == "choice"
    style.assign("long")
    with pytest.raises(tg.Rejected, match=r"style.*'short' or 'long'"):
        style.assign("medium")


def test_a_parameter_behaves_like_its_value():
    prompt = node("abc", trainable=True)
    assert prompt == "abc"
    assert len(prompt) == 3
    assert "b" in prompt
    assert f"{prompt:>5}" == "  abc"
    assert prompt.upper().data == "ABC"
    assert prompt[0].data == "a"
    assert ("x" + prompt).data == "xabc"
    assert [c.data for c in prompt] == ["a", "b", "c"]
    assert hash(prompt) == hash(prompt)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bool(prompt)


def test_a_description_and_a_constraint_are_kept_for_people():
    rate = node(
        0.5, trainable=True, name="rate", description="How fast.",
        constraint=[Annotated[float, pydantic.Field(ge=0, le=1)], "small is better"],
    )  # fmt: skip
    assert rate.description == "How fast."
    assert "small is better" in rate.constraint.describe()
    assert rate._leaf().description == "How fast."


def test_half_a_character_is_refused():
    prompt = node("a", trainable=True, name="prompt")
    with pytest.raises(tg.Rejected, match="surrogate"):
        prompt.assign("b\ud800")
    prompt.assign("whole: \U0001f600")
    assert prompt.version == 1


def test_a_floating_tensor_is_followed_by_torch_and_stays_the_users_own() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    mine = torch.zeros(3)
    weight = node(mine, trainable=True, name="weight")
    assert weight.data is mine
    assert mine.requires_grad
    assert not node(torch.zeros(3, dtype=torch.int64), trainable=True).data.requires_grad
    assert not node(torch.zeros(3)).data.requires_grad
    loss = ((weight - 1) ** 2).sum()
    loss.backward(1.0)
    assert torch.equal(mine.grad, torch.full((3,), -2.0))
    weight.assign(torch.ones(3))
    assert weight.data.requires_grad


def in_threads(*tasks):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=task) for task in tasks]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)


def test_every_change_in_any_thread_is_a_version_of_its_own() -> None:
    word = tg.node("", trainable=True, name="word")
    seen: list[tuple[int | None, str]] = []

    def work(who: int) -> None:
        for i in range(300):
            word.assign(f"{who}.{i}")
            leaf = word + ""
            seen.append((leaf.inputs["x"].version, leaf.data))

    in_threads(*(functools.partial(work, who) for who in range(4)))
    assert word.version == 1200
    by_version: dict[int | None, str] = {}
    for version, value in seen:
        assert by_version.setdefault(version, value) == value


def test_feedback_from_many_threads_is_all_counted() -> None:
    number = tg.node(1.0, trainable=True, name="number")
    word = tg.node("w", trainable=True, name="word")

    def work(who: int) -> None:
        for i in range(100):
            (number * 2.0).backward(Gradient(1.0))
            (word + "!").backward(f"remark {who}.{i}")

    in_threads(*(functools.partial(work, who) for who in range(4)))
    assert number.feedback[Gradient].value == 800.0
    said = str(word.feedback[tg.Remark])
    assert all(f"remark {who}.{i}" in said for who in range(4) for i in range(100))
