from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, Literal

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import tracegraph as tg
from optimizers.search import Variation, mutate, register
from optimizers.search.mutate import mutated
from optimizers.search.text import varied_text

seeds = st.integers(0, 10**6)


class Color(enum.Enum):
    RED = 1
    GREEN = 2
    BLUE = 3


class Shop(BaseModel):
    name: str = Field(max_length=12)
    share: float = Field(ge=0, le=1)
    open: bool


@dataclass(frozen=True)
class Plan:
    hours: int
    notes: tuple[str, ...]


def parameter(value: Any, constraint: Any = None) -> Any:
    return tg.node(value, trainable=True, name="p", constraint=constraint)


@given(seeds, st.floats(-5, 5), st.floats(0.001, 10), st.floats(1e-6, 1))
def test_bounded_numbers_stay_in_bounds(seed: int, low: float, width: float, step: float) -> None:
    high = low + width
    p = parameter(low, Annotated[float, Field(ge=low, le=high)])
    random = Random(seed)
    value = p.data
    for _ in range(20):
        value = mutated(p, value, Variation(random, step))
        assert low <= value <= high


@given(seeds)
def test_whole_numbers_stay_whole_and_on_their_grid(seed: int) -> None:
    p = parameter(10, Annotated[int, Field(gt=0, le=50, multiple_of=5)])
    moved = mutated(p, 10, Variation(Random(seed), 0.01))
    assert type(moved) is int
    assert moved != 10
    assert moved % 5 == 0
    assert 0 < moved <= 50


def test_wide_positive_bounds_are_searched_by_factors() -> None:
    wide = parameter(1e-3, Annotated[float, Field(ge=1e-6, le=1.0)])
    narrow = parameter(0.5, Annotated[float, Field(ge=0.1, le=1.0)])
    found = [mutated(wide, 1e-3, Variation(Random(i), 0.3)) for i in range(300)]
    small = sum(value < 1e-3 for value in found)
    assert 100 < small < 200
    linear = [mutated(narrow, 0.5, Variation(Random(i), 0.1)) for i in range(300)]
    assert abs(sum(linear) / 300 - 0.5) < 0.02


def test_moves_are_normal_with_the_width_of_the_step() -> None:
    p = parameter(0.0, Annotated[float, Field(ge=-50, le=50)])
    found = [mutated(p, 0.0, Variation(Random(i), 0.02)) for i in range(2000)]
    deviation = math.sqrt(sum(x * x for x in found) / len(found))
    assert deviation == pytest.approx(2.0, rel=0.1)
    within = sum(abs(x) < 2.0 for x in found) / len(found)
    assert within == pytest.approx(0.683, abs=0.04)


@pytest.mark.parametrize(
    ("value", "constraint", "choices"),
    [
        ("a", Literal["a", "b", "c"], {"a", "b", "c"}),
        (1, Literal[1, 2, 4], {1, 2, 4}),
        (True, None, {True, False}),
        (Color.RED, None, set(Color)),
        (Color.RED, Color, set(Color)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_choices_stay_among_the_choices_and_reach_all(
    value: Any, constraint: Any, choices: Any
) -> None:
    p = parameter(value, constraint)
    found = {mutated(p, value, Variation(Random(i))) for i in range(60)}
    assert found == choices - {value}


@given(seeds, st.text(alphabet="ab. !\n", max_size=60))
def test_texts_change_by_an_edit_of_their_own_words(seed: int, text: str) -> None:
    varied = varied_text(text, Random(seed))
    assert set(varied.split()) <= set(text.split())
    assert varied_text(text, Random(seed)) == varied


def test_phrases_reach_a_text() -> None:
    phrases = ("Name the price.", "Say thanks.")
    p = parameter("Be kind. Be brief.")
    found = [mutated(p, p.data, Variation(Random(i), phrases=phrases)) for i in range(200)]
    for phrase in phrases:
        assert sum(phrase in text for text in found) > 20
    assert not any("  " in text for text in found)
    assert mutated(parameter(""), "", Variation(Random(0), phrases=phrases)) in phrases


def test_texts_obey_their_constraint() -> None:
    p = parameter("Answer {question} now. Be brief.", [lambda t: "{question}" in t, "keep it"])
    for i in range(100):
        assert "{question}" in mutated(p, p.data, Variation(Random(i)))


@pytest.mark.parametrize(
    ("value", "constraint"),
    [
        ({"a": 1, "b": [1.5, "x y z"], "c": True}, None),
        ([1, 2, 3], Annotated[list[int], Field(min_length=2, max_length=4)]),
        (Shop(name="a b", share=0.9, open=True), Shop),
        (Plan(3, ("a b", "c")), Plan),
        ((1, (2, 3)), None),
        ({"color": Color.RED}, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_structures_change_and_stay_valid(value: Any, constraint: Any) -> None:
    p = parameter(value, constraint)
    before = repr(value)
    for i in range(100):
        found = mutated(p, value, Variation(Random(i), 0.5))
        assert type(found) is type(value)
        assert found != value
        if isinstance(found, Shop):
            assert 0 <= found.share <= 1
            assert len(found.name) <= 12
    assert repr(value) == before


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(3, 2),
        torch.zeros(2),
        torch.randn(3).bfloat16(),
        torch.tensor([1, 2, 3]),
        torch.tensor([True, False]),
        numpy.ones((2, 2)),
        numpy.array([1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tensors_keep_shape_and_type_and_the_given_one_stays(value: Any) -> None:
    p = parameter(value)
    before = value.tolist()
    found = mutated(p, value, Variation(Random(3), 0.5))
    assert (found.shape, found.dtype) == (value.shape, value.dtype)
    assert found.tolist() != before
    assert value.tolist() == before


def test_a_value_without_another_stays() -> None:
    p = parameter("only", Literal["only"])
    assert mutated(p, "only", Variation(Random(0))) == "only"
    assert mutated(parameter(None), None, Variation(Random(0))) is None


@pytest.fixture
def table() -> Iterator[None]:
    kept = dict(mutate._mutators)
    yield
    mutate._mutators.clear()
    mutate._mutators.update(kept)


@pytest.mark.usefixtures("table")
def test_a_mutator_of_ones_own_is_used_and_its_bad_values_are_drawn_again() -> None:
    def by_tens(_: Any, value: Any, variation: Variation) -> Any:
        return value + variation.random.choice((10, 10_000))

    register("number", by_tens)
    p = parameter(1, Annotated[int, Field(le=100)])
    assert {mutated(p, 1, Variation(Random(i))) for i in range(20)} == {11}


def test_a_mutator_is_a_function() -> None:
    with pytest.raises(TypeError, match="a mutator is a function"):
        register("number", 3)  # type: ignore[arg-type]
