from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from optimizers.encoding import decoded, encoded
from tracegraph.errors import OptimizerError

atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.integers() | st.just("$tuple")
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(st.integers())
    ),
    max_leaves=20,
)


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclass(frozen=True)
class Plan:
    color: Color
    speeds: tuple[float, ...]


class Shop(BaseModel):
    name: str
    plan: dict[str, int]


@given(values)
def test_what_was_written_reads_back_the_same_through_json(value: Any) -> None:
    back = decoded(json.loads(json.dumps(encoded(value))), value)
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, (set, dict, list, tuple))


@pytest.mark.parametrize(
    "value",
    [
        Color.GREEN,
        Point(1, 2),
        Plan(Color.RED, (1.5, 2.0)),
        [Plan(Color.RED, ())],
        Shop(name="a", plan={"b": 1}),
        frozenset({1, 2}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_typed_values_keep_their_type(value: Any) -> None:
    back = decoded(json.loads(json.dumps(encoded(value))), value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_arrays_keep_every_bit(dtype: str) -> None:
    value = (numpy.random.default_rng(0).standard_normal((2, 3)) * 3).astype(dtype)
    back = decoded(json.loads(json.dumps(encoded(value))), value)
    assert back.dtype == value.dtype
    assert (back == value).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_tensors_keep_every_bit_and_whether_they_need_gradients(dtype: torch.dtype) -> None:
    value = (torch.randn(2, 3) * 3).to(dtype)
    value.requires_grad_(dtype.is_floating_point)
    back = decoded(json.loads(json.dumps(encoded(value))), value)
    assert (back.dtype, back.requires_grad) == (value.dtype, value.requires_grad)
    assert torch.equal(back, value)


def test_what_cannot_be_written_is_named() -> None:
    with pytest.raises(OptimizerError, match="cannot store"):
        encoded({"f": object()})


@pytest.mark.parametrize("data", [{"$tensor": [1], "shape": [3]}, {"$member": "BLUE"}, {"$odd": 1}])
def test_data_of_another_making_is_refused(data: Any) -> None:
    like = Color.RED if "$member" in data else numpy.zeros(3)
    with pytest.raises(OptimizerError, match="cannot be read"):
        decoded(data, like)
