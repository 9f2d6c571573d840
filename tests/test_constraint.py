"""What values a parameter takes."""

import dataclasses
import enum
import math
import re
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Len, MaxLen, MultipleOf
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

import tracegraph as tg
from tracegraph import Constraint, node

Unit = Annotated[float, Field(ge=0, le=1)]


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Settings(BaseModel):
    rate: Unit = 0.5
    tags: list[str] = []


@dataclasses.dataclass
class Point:
    x: int


def even(value):
    """Must be even"""
    return value % 2 == 0


def short(value):
    if len(value) > 3:
        raise ValueError("keep it under four letters")


TAKEN = [
    (Unit, 0.5, [1.5, -1, "0.5", None, True, math.nan]),
    (Annotated[int, Field(gt=0, multiple_of=5)], 10, [0, 3, 5.0, "10", True]),
    (Literal["a", "b"], "a", ["c", "A", 1, None]),
    (Literal[1, 2], 1, [3, "1", 1.0, True]),
    (Colour, Colour.RED, ["r", "RED", 1]),
    (list[int], [1], [["a"], "1", (1,), [1.5], {1}]),
    (dict[str, int], {"a": 1}, [{"a": "x"}, {1: 1}, []]),
    (tuple[int, str], (1, "a"), [(1,), ("a", 1), [1, "a"]]),
    (int | None, 1, ["x", 1.5]),
    (Settings, Settings(), [{"rate": 0.1}, "x", 5]),
    (str, "a", [1, None, b"a"]),
    (bool, True, ["no", 0, 1, "true"]),
    (re.compile(r"[a-z]+"), "abc", ["ABC", "abc1", "", "abc\n", 5]),
    (MaxLen(3), "abc", ["abcd", [1, 2, 3, 4]]),
    ([str, MaxLen(3)], "abc", ["abcd", 5, [1]]),
    ([Annotated[list[int], Len(1, 2)]], [1], [[], [1, 2, 3]]),
    ([int, Ge(2), MultipleOf(2)], 4, [1, 3, 2.0]),
    (even, 4, [3, "x"]),
    (short, "abc", ["abcd"]),
    ([str, re.compile("a.*"), short, "starts with a"], "abc", ["bc", "abcd", 5]),
    ("only words", "anything", []),
    (None, "anything", []),
    ([], 5, []),
]


@pytest.mark.parametrize(("parts", "good", "bad"), TAKEN, ids=[str(i) for i in range(len(TAKEN))])
def test_what_is_taken_and_what_is_not(parts, good, bad):
    constraint = Constraint(parts)
    assert constraint.fault(good) is None
    for value in bad:
        reason = constraint.fault(value)
        assert isinstance(reason, str), value
        assert reason
        assert len(reason) < 2_000


@pytest.mark.parametrize(("parts", "good", "bad"), TAKEN, ids=[str(i) for i in range(len(TAKEN))])
def test_a_parameter_under_a_constraint(parts, good, bad):
    parameter = node(good, trainable=True, name="p", constraint=parts)
    parameter.assign(good)
    for value in bad:
        with pytest.raises(tg.Rejected) as caught:
            parameter.assign(value)
        assert str(caught.value).startswith("p: ")
    assert parameter.data == good
    assert isinstance(parameter.constraint.describe(), str)


def test_a_wrong_part_is_named():
    for wrong in (5, 3.5, object(), b"x"):
        with pytest.raises(TypeError, match="constraint"):
            Constraint(wrong)
    with pytest.raises(TypeError, match="one annotation"):
        Constraint(int, str)


def test_facts_for_search():
    assert Constraint(Unit).bounds == (0, 1)
    assert Constraint(Annotated[int, Field(gt=0)]).bounds == (0, math.inf)
    assert Constraint(int, Ge(2)).bounds == (2, math.inf)
    assert Constraint("words").bounds == (-math.inf, math.inf)
    assert Constraint(Literal["a", "b"]).choices == ("a", "b")
    assert Constraint(Colour).choices == (Colour.RED, Colour.BLUE)
    assert Constraint(Annotated[Literal["a"], Field(description="x")]).choices == ("a",)
    assert Constraint(int).choices is None
    assert Constraint(str, MaxLen(5)).max_length == 5
    assert Constraint(Annotated[str, Field(max_length=7)]).max_length == 7
    assert Constraint(str).max_length is None
    assert not Constraint()
    assert Constraint("x")
    assert Constraint(even)


def test_schemas_and_words():
    assert Constraint(Unit).schema() == {"type": "number", "minimum": 0, "maximum": 1}
    assert Constraint(Settings).schema()["properties"]["rate"]["maximum"] == 1
    assert Constraint("x").schema() is None
    said = Constraint(
        Annotated[str, Field(max_length=9)], re.compile("a+"), even, short, "be nice"
    ).describe()
    for part in ('"maxLength": 9', "a+", "ust be even", "short", "be nice"):
        assert part in said
    assert Constraint(Colour).describe() == "one of RED, BLUE"
    assert Constraint(Literal["a", 2]).describe() == "one of 'a', 2"


def test_reading_json():
    assert Constraint(Settings).read({"rate": 0.25}) == Settings(rate=0.25)
    assert Constraint(tuple[int, int]).read([1, 2]) == (1, 2)
    assert Constraint(set[int]).read([1, 2]) == {1, 2}
    assert Constraint(Colour).read("RED") is Colour.RED
    assert Constraint(Colour).read("b") is Colour.BLUE
    assert Constraint(Literal["a"]).read("b") == "b"
    assert Constraint(Point).read({"x": 5}) == Point(5)
    assert Constraint(Unit).read(1) == 1.0
    with pytest.raises(ValueError, match="rate"):
        Constraint(Settings).read({"rate": 9})
    with pytest.raises(ValueError, match="int"):
        Constraint(list[int]).read(["a"])


def test_the_reason_names_the_part_that_is_wrong():
    settings = node(Settings(), trainable=True, name="settings")
    with pytest.raises(tg.Rejected, match=r"settings: rate: .*less than or equal to 1, got 7"):
        settings.read({"rate": 7})


def test_a_predicate_that_fails_on_a_strange_value_rejects():
    parameter = node(4, trainable=True, name="p", constraint=lambda v: 10 / v > 1)
    with pytest.raises(tg.Rejected, match="division by zero"):
        parameter.assign(0)


def test_a_forward_reference_or_an_undescribable_type_does_not_break_the_parameter():
    class Opaque:
        pass

    @dataclasses.dataclass
    class Holds:
        thing: Opaque

    parameter = node(Holds(Opaque()), trainable=True, name="p")
    parameter.assign(Holds(Opaque()))
    assert isinstance(parameter.constraint.describe(), str)


@given(
    st.one_of(
        st.integers(), st.floats(), st.text(), st.none(), st.booleans(), st.lists(st.integers())
    )
)
def test_checks_agree_with_strict_pydantic(value):
    for annotation in (Unit, int, list[int], str, bool, int | None, Any):
        try:
            TypeAdapter(annotation).validate_python(value, strict=True)
            good = True
        except ValidationError:
            good = False
        assert (Constraint(annotation).fault(value) is None) == good
