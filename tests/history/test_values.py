from __future__ import annotations

import json
import math
from collections import namedtuple
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tracegraph.errors import HistoryError
from tracegraph.history.values import pack, unpack

keys = st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.none())
atoms = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=20),
    st.complex_numbers(),
)  # fmt: skip
trees = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(st.integers(), max_size=4),
        st.frozensets(st.text(max_size=3), max_size=4),
    ),
    max_leaves=15,
)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    return bool(one == other)


def through_json(value: Any, like: Any = None) -> Any:
    tensors: dict[str, Any] = {}
    return unpack(json.loads(json.dumps(pack(value, tensors))), tensors, like)


@given(trees)
def test_a_value_comes_back_the_same(value: Any) -> None:
    assert same(through_json(value), value)


@given(st.dictionaries(st.sampled_from(["$tuple", "$tensor", "a"]), st.integers()))
def test_keys_that_look_like_tags_are_only_keys(value: dict[str, int]) -> None:
    assert through_json(value) == value


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: float
    names: tuple[str, ...]


class Settings(BaseModel):
    rate: float
    colour: str


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "like"),
    [
        (Colour.BLUE, Colour.RED),
        (Point(float("inf"), ("a",)), Point(0.0, ())),
        (Settings(rate=0.5, colour="red"), Settings(rate=0.0, colour="")),
        (Pair(1, (2,)), Pair(0, (0,))),
        ([Colour.RED, Colour.BLUE], [Colour.RED]),
    ],
)
def test_types_are_taken_from_a_like_value(value: Any, like: Any) -> None:
    back = through_json(value, like)
    assert back == value
    assert type(back) is type(value)


def test_a_type_that_is_not_known_is_an_error() -> None:
    with pytest.raises(HistoryError, match="type is not known"):
        through_json(Point(1.0, ()))


def test_tensors_keep_type_sharing_and_gradient_flag() -> None:
    weight = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    back = through_json({"a": weight, "b": [weight], "n": numpy.float32(0.1), "v": weight[:, 0]})
    assert back["a"] is back["b"][0]
    assert torch.equal(back["a"], weight)
    assert back["a"].requires_grad
    assert type(back["n"]) is numpy.float32
    assert back["n"] == numpy.float32(0.1)
    assert back["v"].is_contiguous()


def test_a_packed_tensor_does_not_follow_the_original() -> None:
    tensors: dict[str, Any] = {}
    array = numpy.zeros(3)
    data = pack(array, tensors)
    array += 1
    assert unpack(data, tensors).tolist() == [0, 0, 0]


loop: list[Any] = []
loop.append(loop)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": [object()]}, r"value\['a'\]\[0\] is <object>"),
        (len, "builtin_function"),
        (loop, "holds itself"),
        (numpy.array([object()]), "array of object"),
        (torch.zeros(2).to_sparse(), "sparse"),
    ],
)
def test_what_cannot_be_kept_says_where(value: Any, says: str) -> None:
    with pytest.raises(HistoryError, match=says):
        pack(value, {})


@given(st.recursive(atoms | st.just({"$tuple": 3}), lambda i: st.dictionaries(
    st.sampled_from(["$int", "$float", "$bytes", "$complex", "$tuple", "$set", "$items", "$tensor",
                     "$scalar", "$member", "$fields", "$other"]), i, max_size=2), max_leaves=4))  # fmt: skip
def test_damaged_data_is_one_kind_of_error(data: Any) -> None:
    with suppress(HistoryError):
        unpack(data, {})
